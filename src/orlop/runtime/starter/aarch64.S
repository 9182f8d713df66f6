// Let a process at its gate go, for AArch64. ABI: AAPCS64, syscalls(2).
// sp: argc, then argv: itself, the gate's path, the interpreter's path (which becomes argv[0]), "-Xgate=---", more.
        .globl  _start
_start:
        ldr     x9, [sp]                    // argc
        add     x19, sp, #16                // argv, without ourselves
        add     x20, x19, x9, lsl #3        // envp
        cmp     x9, #4
        b.lo    failed
        sub     sp, sp, #128                // struct sockaddr_un
        mov     w10, #1                     // AF_UNIX
        strh    w10, [sp]
        ldr     x11, [x19]
        add     x12, sp, #2
        mov     w13, #108
path:
        ldrb    w14, [x11], #1
        strb    w14, [x12], #1
        cbz     w14, whole
        subs    w13, w13, #1
        b.ne    path
        b       interpreter                 // too long for a socket's name
whole:
        mov     x8, #198                    // socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0)
        mov     x0, #1
        mov     x1, #5
        movk    x1, #8, lsl #16
        mov     x2, #0
        svc     #0
        cmp     x0, #1000                   // an error, or more digits than there is room for
        b.hs    interpreter
        mov     x21, x0
        mov     x8, #203                    // connect(gate, path, 110)
        mov     x1, sp
        mov     x2, #110
        svc     #0
        cbnz    x0, interpreter
        mov     x3, #0                      // recvfrom(gate, byte, 1, 0, NULL, NULL): ENTERED
        bl      receive
        cmp     x0, #1
        b.ne    interpreter
        ldrb    w10, [sp]
        cmp     w10, #'E'
        b.ne    interpreter
        mov     x3, #2                      // the same with MSG_PEEK: the end of file when the command is executed
        bl      receive
        cbnz    x0, told
        mov     x8, #35                     // unlinkat(AT_FDCWD, path, 0)
        mov     x0, #-100
        ldr     x1, [x19]
        mov     x2, #0
        svc     #0
        mov     x0, #0
        b       exit
told:
        mov     x8, #25                     // fcntl(gate, F_SETFD, 0)
        mov     x0, x21
        mov     x1, #2
        mov     x2, #0
        svc     #0
        ldr     x11, [x19, #16]             // its number, in three digits
        mov     w9, w21
        mov     w10, #10
        mov     x12, #9
digit:
        udiv    w13, w9, w10
        msub    w14, w13, w10, w9
        add     w14, w14, #'0'
        strb    w14, [x11, x12]
        mov     w9, w13
        sub     x12, x12, #1
        cmp     x12, #7
        b.hs    digit
interpreter:
        mov     x8, #221                    // execve(argv[2], argv + 2, envp)
        ldr     x0, [x19, #8]
        add     x1, x19, #8
        mov     x2, x20
        svc     #0
failed:
        mov     x0, #127
exit:
        mov     x8, #93
        svc     #0
receive:
        mov     x8, #207
        mov     x0, x21
        mov     x1, sp
        mov     x2, #1
        mov     x4, #0
        mov     x5, #0
        svc     #0
        ret
