// Execute an interpreter from a sealed copy in memory, for AArch64. ABI: AAPCS64, syscalls(2).
// sp: argc, then argv: itself, the interpreter's path (which becomes argv[0]), the interpreter's arguments.
        .globl  _start
_start:
        ldr     x9, [sp]                    // argc
        add     x19, sp, #16                // argv, without ourselves
        add     x20, x19, x9, lsl #3        // envp
        cmp     x9, #2
        b.lo    failed
        mov     x8, #56                     // openat(AT_FDCWD, argv[1], O_RDONLY | O_CLOEXEC)
        mov     x0, #-100
        ldr     x1, [x19]
        mov     x2, #0x80000
        svc     #0
        tbnz    x0, #63, plain
        mov     x21, x0
        mov     x8, #279                    // memfd_create(name, CLOEXEC | ALLOW_SEALING | EXEC)
        adr     x0, name
        mov     x1, #0x13
        svc     #0
        tbz     x0, #63, copy
        mov     x8, #279                    // before 6.3 there is no MFD_EXEC
        adr     x0, name
        mov     x1, #3
        svc     #0
        tbnz    x0, #63, plain
copy:
        mov     x22, x0
more:
        mov     x8, #71                     // sendfile(copy, source, NULL, 1 GiB)
        mov     x0, x22
        mov     x1, x21
        mov     x2, #0
        mov     x3, #0x40000000
        svc     #0
        tbnz    x0, #63, plain
        cbnz    x0, more
        mov     x8, #52                     // fchmod(copy, 0555)
        mov     x0, x22
        mov     x1, #0x16d
        svc     #0
        mov     x8, #25                     // fcntl(copy, F_ADD_SEALS, SEAL | SHRINK | GROW | WRITE)
        mov     x0, x22
        mov     x1, #1033
        mov     x2, #15
        svc     #0
        tbnz    x0, #63, plain
        mov     x8, #281                    // execveat(copy, "", argv, envp, AT_EMPTY_PATH)
        mov     x0, x22
        adr     x1, empty
        mov     x2, x19
        mov     x3, x20
        mov     x4, #0x1000
        svc     #0
plain:
        mov     x8, #221                    // execve(argv[1], argv, envp): it finds itself unsealed, and does it again
        ldr     x0, [x19]
        mov     x1, x19
        mov     x2, x20
        svc     #0
failed:
        mov     x8, #93                     // exit(127)
        mov     x0, #127
        svc     #0
name:
        .ascii  "orlop-runtime"
empty:
        .byte   0
