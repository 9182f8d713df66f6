# Process 1 of a container with --init, for x86-64. ABI: System V AMD64 supplement (process entry), syscalls(2).
# argv: itself, the program's path, the program's own argv[0] and arguments.
        .globl  _start
_start:
        mov     (%rsp), %r12                # argc
        lea     8(%rsp), %r13               # argv
        lea     16(%rsp,%r12,8), %r14       # envp
        cmp     $3, %r12
        jb      usage
        sub     $0x200, %rsp
        movq    $-1, (%rsp)                 # every signal: fetched here, never acted upon
        mov     $14, %eax                   # rt_sigprocmask(SIG_SETMASK, all, old, 8)
        mov     $2, %edi
        mov     %rsp, %rsi
        lea     8(%rsp), %rdx
        mov     $8, %r10d
        syscall
        mov     $56, %eax                   # clone(SIGCHLD): a fork
        mov     $17, %edi
        xor     %esi, %esi
        xor     %edx, %edx
        xor     %r10d, %r10d
        xor     %r8d, %r8d
        syscall
        test    %rax, %rax
        js      usage
        jz      child
        mov     %rax, %rbx                  # the program's pid
        mov     $157, %eax                  # prctl(PR_SET_NAME, name): executed from memory, it has none
        mov     $15, %edi
        lea     name(%rip), %rsi
        syscall
next:   mov     $128, %eax                  # rt_sigtimedwait(all, info, NULL, 8)
        mov     %rsp, %rdi
        lea     64(%rsp), %rsi
        xor     %edx, %edx
        mov     $8, %r10d
        syscall
        test    %rax, %rax
        js      next
        cmp     $17, %eax                   # SIGCHLD
        je      reap
        mov     %eax, %r15d
        cmpl    $0, (64 + 8)(%rsp)          # si_code: above 0 it is the kernel's (a terminal)
        jg      forward
        lea     32(%rsp), %rdi              # who sent it becomes our name: the signal, its uid, its pid
        add     $'0', %al
        stosb
        mov     (64 + 20)(%rsp), %edx
        mov     $8, %ecx
        call    digits
        mov     (64 + 16)(%rsp), %edx
        shl     $8, %edx
        mov     $6, %ecx
        call    digits
        movb    $0, (%rdi)
        mov     $157, %eax                  # prctl(PR_SET_NAME, it)
        mov     $15, %edi
        lea     32(%rsp), %rsi
        syscall
forward: mov    $62, %eax                   # kill(pid, signal)
        mov     %ebx, %edi
        mov     %r15d, %esi
        syscall
        jmp     next
reap:   mov     $61, %eax                   # wait4(-1, &status, WNOHANG, NULL)
        mov     $-1, %rdi
        lea     16(%rsp), %rsi
        mov     $1, %edx
        xor     %r10d, %r10d
        syscall
        test    %rax, %rax
        jle     next
        cmp     %ebx, %eax
        jne     reap
        mov     16(%rsp), %eax              # the program's own end is ours: its status, or 128 and its signal
        mov     %eax, %edi
        and     $0x7f, %edi
        jz      exited
        add     $128, %edi
        jmp     exit
exited: movzbl  %ah, %edi
exit:   mov     $231, %eax                  # exit_group
        syscall
child:  mov     $109, %eax                  # setpgid(0, 0): a terminal's signals are for the program alone
        xor     %edi, %edi
        xor     %esi, %esi
        syscall
        mov     $39, %eax                   # getpid
        syscall
        mov     %eax, 24(%rsp)
        mov     $16, %eax                   # ioctl(0, TIOCSPGRP, &pid): no terminal is no error
        xor     %edi, %edi
        mov     $0x5410, %esi
        lea     24(%rsp), %rdx
        syscall
        mov     $14, %eax                   # rt_sigprocmask(SIG_SETMASK, old, NULL, 8)
        mov     $2, %edi
        lea     8(%rsp), %rsi
        xor     %edx, %edx
        mov     $8, %r10d
        syscall
        mov     $59, %eax                   # execve(argv[1], argv + 2, envp)
        mov     8(%r13), %rdi
        lea     16(%r13), %rsi
        mov     %r14, %rdx
        syscall
        mov     %rax, %rbp
        mov     $1, %eax                    # write(2, text, length)
        mov     $2, %edi
        lea     text(%rip), %rsi
        mov     $(end - text), %edx
        syscall
        mov     $126, %edi
        cmp     $-2, %rbp                   # -ENOENT: its interpreter is not there
        jne     exit
        inc     %edi
        jmp     exit
usage:  mov     $125, %edi
        jmp     exit
digits: rol     $4, %edx                    # so many hexadecimal digits of edx from the left
        mov     %edx, %eax
        and     $15, %eax
        add     $'0', %eax
        cmp     $'9', %eax
        jbe     digit
        add     $('a' - '9' - 1), %eax
digit:  stosb
        loop    digits
        ret
text:   .ascii  "orlop-init: the program can't be executed\n"
end:
name:   .asciz  "orlop-init"
