# Execute an interpreter from where nobody can write it, for x86-64. ABI: System V AMD64 supplement, syscalls(2).
# argv: itself, the interpreter's path (which becomes argv[0]), the interpreter's arguments.
        .globl  _start
_start:
        mov     (%rsp), %rax                # argc
        lea     16(%rsp), %r13              # argv, without ourselves
        lea     16(%rsp,%rax,8), %r14       # envp
        cmp     $2, %rax
        jb      failed
        sub     $256, %rsp                  # fsconfig(2) takes strings of up to 255 bytes
        mov     (%r13), %rsi                # the last slash of argv[1] ends the directory's name
        xor     %r15d, %r15d
        xor     %ecx, %ecx
scan:
        mov     (%rsi,%rcx), %al
        test    %al, %al
        jz      scanned
        mov     %al, (%rsp,%rcx)
        cmp     $'/', %al
        cmove   %ecx, %r15d
        inc     %ecx
        cmp     $240, %ecx
        jb      scan
        jmp     memory
scanned:
        test    %r15d, %r15d
        jz      memory
        movl    $0x7665642f, 1(%rsp,%r15)   # "<directory>:/dev": two layers are the fewest that make one without an upper
        movb    $':', (%rsp,%r15)
        movb    $0, 5(%rsp,%r15)
        mov     $430, %eax                  # fsopen("overlay", FSOPEN_CLOEXEC)
        lea     overlay(%rip), %rdi
        mov     $1, %esi
        syscall
        test    %rax, %rax
        js      memory
        mov     %rax, %r12
        mov     $431, %eax                  # fsconfig(fs, FSCONFIG_SET_STRING, "lowerdir", it, 0)
        mov     %r12, %rdi
        mov     $1, %esi
        lea     lowerdir(%rip), %rdx
        mov     %rsp, %r10
        xor     %r8d, %r8d
        syscall
        test    %rax, %rax
        js      memory
        mov     $431, %eax                  # fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0)
        mov     %r12, %rdi
        mov     $6, %esi
        xor     %edx, %edx
        xor     %r10d, %r10d
        xor     %r8d, %r8d
        syscall
        test    %rax, %rax
        js      memory
        mov     $432, %eax                  # fsmount(fs, FSMOUNT_CLOEXEC, MOUNT_ATTR_RDONLY)
        mov     %r12, %rdi
        mov     $1, %esi
        mov     $1, %edx
        syscall
        test    %rax, %rax
        js      memory
        mov     %rax, %r12
        mov     $437, %eax                  # openat2(mount, the name, {O_CLOEXEC, 0, RESOLVE_BENEATH}, 24)
        mov     %r12, %rdi
        mov     (%r13), %rsi
        lea     1(%rsi,%r15), %rsi
        lea     how(%rip), %rdx
        mov     $24, %r10d
        syscall
        test    %rax, %rax
        js      memory
        mov     %rax, %r12
        mov     $322, %eax                  # execveat(file, "", argv, envp, AT_EMPTY_PATH)
        mov     %r12, %rdi
        lea     empty(%rip), %rsi
        mov     %r13, %rdx
        mov     %r14, %r10
        mov     $0x1000, %r8d
        syscall
memory:
        mov     $2, %eax                    # open(argv[1], O_RDONLY | O_CLOEXEC)
        mov     (%r13), %rdi
        mov     $0x80000, %esi
        syscall
        test    %rax, %rax
        js      plain
        mov     %rax, %rbx
        mov     $319, %eax                  # memfd_create(name, CLOEXEC | ALLOW_SEALING | EXEC)
        lea     name(%rip), %rdi
        mov     $0x13, %esi
        syscall
        test    %rax, %rax
        jns     copy
        mov     $319, %eax                  # before 6.3 there is no MFD_EXEC
        lea     name(%rip), %rdi
        mov     $3, %esi
        syscall
        test    %rax, %rax
        js      plain
copy:
        mov     %rax, %r12
more:
        mov     $40, %eax                   # sendfile(copy, source, NULL, 1 GiB)
        mov     %r12, %rdi
        mov     %rbx, %rsi
        xor     %edx, %edx
        mov     $0x40000000, %r10d
        syscall
        test    %rax, %rax
        js      plain
        jnz     more
        mov     $91, %eax                   # fchmod(copy, 0555)
        mov     %r12, %rdi
        mov     $0x16d, %esi
        syscall
        mov     $72, %eax                   # fcntl(copy, F_ADD_SEALS, SEAL | SHRINK | GROW | WRITE)
        mov     %r12, %rdi
        mov     $1033, %esi
        mov     $15, %edx
        syscall
        test    %rax, %rax
        js      plain
        mov     $322, %eax                  # execveat(copy, "", argv, envp, AT_EMPTY_PATH)
        mov     %r12, %rdi
        lea     empty(%rip), %rsi
        mov     %r13, %rdx
        mov     %r14, %r10
        mov     $0x1000, %r8d
        syscall
plain:
        mov     $59, %eax                   # execve(argv[1], argv, envp): it finds itself unsealed, and does it again
        mov     (%r13), %rdi
        mov     %r13, %rsi
        mov     %r14, %rdx
        syscall
failed:
        mov     $60, %eax                   # exit(127)
        mov     $127, %edi
        syscall
        .balign 8
how:
        .quad   0x80000, 0, 8
overlay:
        .asciz  "overlay"
lowerdir:
        .asciz  "lowerdir"
name:
        .ascii  "orlop-runtime"
empty:
        .byte   0
