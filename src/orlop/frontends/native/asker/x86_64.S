# Ask the engine for a process and carry what it writes, for x86-64. ABI: System V AMD64 supplement, syscalls(2).
# argv: itself, the run directory, the request, the interpreter (which becomes argv[0]), "-Xasked=---,---,---", more.
# r13: argv without ourselves, r14: envp, ebp: the run directory, ebx: our uid, then an errno, r12: the engine,
# r15: our end of the stream. On the stack: a message at 0, and from `data` on what is read.
        .equ    data, 256
        .equ    payload_max, 65536
        .globl  _start
_start:
        mov     (%rsp), %rax                # argc
        lea     16(%rsp), %r13
        lea     16(%rsp,%rax,8), %r14
        cmp     $5, %rax
        jb      failed
        sub     $(data + payload_max + 16), %rsp
        mov     $2, %ebp
standard:
        mov     $72, %eax                   # fcntl(0 to 2, F_GETFD): no socket shall become one of these
        mov     %ebp, %edi
        mov     $1, %esi
        syscall
        test    %rax, %rax
        js      interpreter
        dec     %ebp
        jns     standard
        mov     $2, %eax                    # open(run directory, O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)
        mov     (%r13), %rdi
        mov     $0xb0000, %esi
        syscall
        cmp     $1000, %rax
        jae     interpreter
        mov     %eax, %edi
        mov     $72, %eax                   # fcntl(it, F_DUPFD_CLOEXEC, 100): three digits
        mov     $1030, %esi
        mov     $100, %edx
        syscall
        cmp     $1000, %rax
        jae     interpreter
        mov     %eax, %ebp
        mov     $107, %eax                  # geteuid()
        syscall
        mov     %eax, %ebx
        mov     $5, %eax                    # fstat(run directory)
        mov     %ebp, %edi
        mov     %rsp, %rsi
        syscall
        test    %rax, %rax
        jnz     interpreter
        cmp     %ebx, 28(%rsp)              # st_uid
        jne     interpreter
        testb   $077, 24(%rsp)              # st_mode
        jnz     interpreter
        lea     name(%rip), %rsi            # struct sockaddr_un
        mov     %rsp, %rdi
        mov     $(name_end - name), %ecx
        rep movsb
        mov     %ebp, %eax
        lea     (2 + 14)(%rsp), %rsi
        call    number
        mov     $41, %eax                   # socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)
        mov     $1, %edi
        mov     $0x80001, %esi
        xor     %edx, %edx
        syscall
        cmp     $1000, %rax                 # an error, or more digits than there is room for
        jae     interpreter
        mov     %eax, %r12d
        mov     $42, %eax                   # connect(engine, name, its length)
        mov     %r12d, %edi
        mov     %rsp, %rsi
        mov     $(name_end - name), %edx
        syscall
        test    %rax, %rax
        jnz     interpreter
        movl    $12, 64(%rsp)
        mov     $55, %eax                   # getsockopt(engine, SOL_SOCKET, SO_PEERCRED)
        mov     %r12d, %edi
        mov     $1, %esi
        mov     $17, %edx
        mov     %rsp, %r10
        lea     64(%rsp), %r8
        syscall
        test    %rax, %rax
        jnz     interpreter
        cmp     %ebx, 4(%rsp)               # its uid
        jne     interpreter
        mov     $53, %eax                   # socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)
        mov     $1, %edi
        mov     $0x80001, %esi
        xor     %edx, %edx
        mov     %rsp, %r10
        syscall
        test    %rax, %rax
        jnz     interpreter
        mov     (%rsp), %r15d
        mov     4(%rsp), %ebx               # the monitor's end
        cmp     $1000, %ebx
        jae     interpreter
        mov     8(%r13), %rdi               # strlen(request)
        xor     %eax, %eax
        mov     $-1, %rcx
        repne scasb
        not     %rcx
        dec     %rcx
        mov     %rsp, %rdi
        mov     $32, %edx
        xchg    %rcx, %rdx
        rep stosq
        mov     %edx, %eax
        bswap   %eax
        mov     %eax, 56(%rsp)              # struct msghdr at 0, the length word at 56
        lea     64(%rsp), %rax              # two struct iovec at 64
        mov     %rax, 16(%rsp)
        movq    $2, 24(%rsp)
        lea     96(%rsp), %rax              # struct cmsghdr at 96, with the monitor's end
        mov     %rax, 32(%rsp)
        movq    $24, 40(%rsp)
        lea     56(%rsp), %rax
        mov     %rax, 64(%rsp)
        movq    $4, 72(%rsp)
        mov     8(%r13), %rax
        mov     %rax, 80(%rsp)
        mov     %rdx, 88(%rsp)
        movq    $20, 96(%rsp)
        movl    $1, 104(%rsp)               # SOL_SOCKET
        movl    $1, 108(%rsp)               # SCM_RIGHTS
        mov     %ebx, 112(%rsp)
        lea     4(%rdx), %r8
        mov     $46, %eax                   # sendmsg(engine, message, MSG_NOSIGNAL)
        mov     %r12d, %edi
        mov     %rsp, %rsi
        mov     $0x4000, %edx
        syscall
        cmp     %r8, %rax                   # an engine acts on whole requests only
        jne     interpreter
        mov     $3, %eax                    # close(the monitor's end)
        mov     %ebx, %edi
        syscall
        xor     %ebx, %ebx
        mov     $45, %eax                   # recvfrom(engine, data, 14, MSG_PEEK, NULL, NULL)
        mov     %r12d, %edi
        lea     data(%rsp), %rsi
        mov     $14, %edx
        mov     $2, %r10d
        xor     %r8d, %r8d
        xor     %r9d, %r9d
        syscall
        cmp     $14, %rax
        jne     told
        movabs  $0x746c75736572227b, %rax   # {"result
        cmp     %rax, (data + 4)(%rsp)
        jne     told
frame:
        mov     $8, %edx
        call    read
        jne     told
        mov     data(%rsp), %bpl            # its kind
        mov     (data + 4)(%rsp), %edx
        bswap   %edx
        cmp     $payload_max, %edx
        ja      told
        mov     %edx, %r9d
        call    read
        jne     told
        cmp     $18, %bpl                   # EXIT
        je      ended
        movzbl  %bpl, %edi                  # STDOUT and STDERR are 1 and 2, as they are here
        dec     %bpl
        cmp     $1, %bpl
        ja      told
        lea     data(%rsp), %rsi
write:
        test    %r9d, %r9d
        jz      frame
        mov     $1, %eax
        mov     %r9d, %edx
        syscall
        test    %rax, %rax
        js      unwritten
        add     %rax, %rsi
        sub     %eax, %r9d
        jmp     write
unwritten:
        neg     %eax
        cmp     $11, %eax                   # EAGAIN
        cmovne  %eax, %ebx
        jne     told
        mov     %edi, (%rsp)                # poll(struct pollfd, 1, -1), POLLOUT
        movl    $4, 4(%rsp)
        mov     %rsi, 8(%rsp)
        mov     $7, %eax
        mov     %rsp, %rdi
        mov     $1, %esi
        mov     $-1, %edx
        syscall
        mov     (%rsp), %edi
        mov     8(%rsp), %rsi
        jmp     write
ended:
        movb    $0, data(%rsp,%r9)
        cmp     $14, %r9d
        jb      told
        movabs  $0x6f4374697865227b, %rax   # {"exitCo
        cmp     %rax, data(%rsp)
        jne     told
        cmpl    $0x3a226564, (data + 8)(%rsp)   # de":
        jne     told
        lea     (data + 12)(%rsp), %rsi
        xor     %edi, %edi
        xor     %eax, %eax
        cmpb    $'0', (%rsi)
        jb      told
        cmpb    $'9', (%rsi)
        ja      told
value:
        lodsb
        sub     $'0', %al
        cmp     $9, %al
        ja      exit                        # a comma, or the end of the object
        imul    $10, %edi, %edi
        add     %eax, %edi
        jmp     value
told:
        mov     24(%r13), %rsi              # what the interpreter goes on with: the engine, the stream, an errno
        add     $8, %rsi
        mov     %r12d, %eax
        call    handed
        add     $4, %rsi
        mov     %r15d, %eax
        call    handed
        add     $4, %rsi
        mov     %ebx, %eax
        call    number
interpreter:
        mov     $59, %eax                   # execve(argv[3], argv + 3, envp)
        mov     16(%r13), %rdi
        lea     16(%r13), %rsi
        mov     %r14, %rdx
        syscall
failed:
        mov     $127, %edi
exit:
        mov     $60, %eax
        syscall
handed:
        push    %rax
        push    %rsi
        mov     %eax, %edi
        mov     $72, %eax                   # fcntl(it, F_SETFD, 0)
        mov     $2, %esi
        xor     %edx, %edx
        syscall
        pop     %rsi
        pop     %rax
number:                                     # eax, in three digits at rsi
        mov     $10, %ecx
        mov     $2, %edi
digit:
        xor     %edx, %edx
        div     %ecx
        add     $'0', %dl
        mov     %dl, (%rsi,%rdi)
        dec     %edi
        jns     digit
        ret
read:                                       # edx bytes of the stream to data, or not equal
        lea     (data + 8)(%rsp), %rsi
        mov     %edx, %r8d
more:
        mov     %r8d, %edx
        test    %edx, %edx
        jz      done
        xor     %eax, %eax
        mov     %r15d, %edi
        syscall
        test    %rax, %rax
        jle     short
        add     %rax, %rsi
        sub     %eax, %r8d
        jmp     more
short:
        or      $1, %edx
done:
        ret
name:
        .byte   1, 0                        # AF_UNIX
        .asciz  "/proc/self/fd/---/engine.sock"
name_end:
