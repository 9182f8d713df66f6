// Execute an interpreter from where nobody can write it, for AArch64. ABI: AAPCS64, syscalls(2).
// sp: argc, then argv: itself, the interpreter's path (which becomes argv[0]), the interpreter's arguments.
        .globl  _start
_start:
        ldr     x9, [sp]                    // argc
        add     x19, sp, #16                // argv, without ourselves
        add     x20, x19, x9, lsl #3        // envp
        cmp     x9, #2
        b.lo    failed
        sub     sp, sp, #256                // fsconfig(2) takes strings of up to 255 bytes
        mov     x10, sp
        ldr     x11, [x19]                  // the last slash of argv[1] ends the directory's name
        mov     x23, #0
        mov     x12, #0
scan:
        ldrb    w13, [x11, x12]
        cbz     w13, scanned
        strb    w13, [x10, x12]
        cmp     w13, #'/'
        csel    x23, x12, x23, eq
        add     x12, x12, #1
        cmp     x12, #240
        b.lo    scan
        b       memory
scanned:
        cbz     x23, memory
        add     x10, x10, x23               // "<directory>:/dev": two layers are the fewest that make one without an upper
        adr     x11, second
        ldr     x12, [x11]
        str     x12, [x10]
        mov     x8, #430                    // fsopen("overlay", FSOPEN_CLOEXEC)
        adr     x0, overlay
        mov     x1, #1
        svc     #0
        tbnz    x0, #63, memory
        mov     x22, x0
        mov     x8, #431                    // fsconfig(fs, FSCONFIG_SET_STRING, "lowerdir", it, 0)
        mov     x1, #1
        adr     x2, lowerdir
        mov     x3, sp
        mov     x4, #0
        svc     #0
        tbnz    x0, #63, memory
        mov     x8, #431                    // fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0)
        mov     x0, x22
        mov     x1, #6
        mov     x2, #0
        mov     x3, #0
        mov     x4, #0
        svc     #0
        tbnz    x0, #63, memory
        mov     x8, #432                    // fsmount(fs, FSMOUNT_CLOEXEC, MOUNT_ATTR_RDONLY)
        mov     x0, x22
        mov     x1, #1
        mov     x2, #1
        svc     #0
        tbnz    x0, #63, memory
        mov     x8, #437                    // openat2(mount, the name, {O_CLOEXEC, 0, RESOLVE_BENEATH}, 24)
        ldr     x1, [x19]
        add     x1, x1, x23
        add     x1, x1, #1
        adr     x2, how
        mov     x3, #24
        svc     #0
        tbnz    x0, #63, memory
        mov     x8, #281                    // execveat(file, "", argv, envp, AT_EMPTY_PATH)
        adr     x1, empty
        mov     x2, x19
        mov     x3, x20
        mov     x4, #0x1000
        svc     #0
memory:
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
        .balign 8
how:
        .quad   0x80000, 0, 8
second:
        .ascii  ":/dev\0\0\0"
overlay:
        .asciz  "overlay"
lowerdir:
        .asciz  "lowerdir"
name:
        .ascii  "orlop-runtime"
empty:
        .byte   0
