// Ask the engine for a process and carry what it writes, for AArch64. ABI: AAPCS64, syscalls(2).
// argv: itself, the run directory, the request, the interpreter (which becomes argv[0]), "-Xasked=---,---,---", more.
// x19: argv without ourselves, x20: envp, w21: the run directory, then a frame's kind, w22: our uid, then an errno,
// w23: the engine, w24: our end of the stream. On the stack: a message at 0, and from `data` on (x25) what is read.
        .equ    data, 256
        .equ    payload_max, 65536
        .globl  _start
_start:
        ldr     x9, [sp]                    // argc
        add     x19, sp, #16
        add     x20, x19, x9, lsl #3
        cmp     x9, #5
        b.lo    failed
        sub     sp, sp, #payload_max
        sub     sp, sp, #(data + 16)
        add     x25, sp, #data
        mov     w21, #2
standard:
        mov     x8, #25                     // fcntl(0 to 2, F_GETFD): no socket shall become one of these
        mov     w0, w21
        mov     x1, #1
        mov     x2, #0
        svc     #0
        tbnz    x0, #63, interpreter
        subs    w21, w21, #1
        b.pl    standard
        mov     x8, #56                     // openat(AT_FDCWD, run directory, O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)
        mov     x0, #-100
        ldr     x1, [x19]
        mov     x2, #0xc000
        movk    x2, #8, lsl #16
        mov     x3, #0
        svc     #0
        cmp     x0, #1000
        b.hs    interpreter
        mov     x8, #25                     // fcntl(it, F_DUPFD_CLOEXEC, 100): three digits
        mov     x1, #1030
        mov     x2, #100
        svc     #0
        cmp     x0, #1000
        b.hs    interpreter
        mov     w21, w0
        mov     x8, #175                    // geteuid()
        svc     #0
        mov     w22, w0
        mov     x8, #80                     // fstat(run directory)
        mov     w0, w21
        mov     x1, sp
        svc     #0
        cbnz    x0, interpreter
        ldp     w9, w10, [sp, #16]          // st_mode, st_nlink
        ldr     w10, [sp, #24]              // st_uid
        cmp     w10, w22
        b.ne    interpreter
        tst     w9, #077
        b.ne    interpreter
        adr     x9, name                    // struct sockaddr_un
        mov     x10, sp
        mov     w11, #(name_end - name)
copy:
        ldrb    w12, [x9], #1
        strb    w12, [x10], #1
        subs    w11, w11, #1
        b.ne    copy
        mov     w0, w21
        add     x1, sp, #(2 + 14)
        bl      number
        mov     x8, #198                    // socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)
        mov     x0, #1
        mov     x1, #1
        movk    x1, #8, lsl #16
        mov     x2, #0
        svc     #0
        cmp     x0, #1000                   // an error, or more digits than there is room for
        b.hs    interpreter
        mov     w23, w0
        mov     x8, #203                    // connect(engine, name, its length)
        mov     x1, sp
        mov     x2, #(name_end - name)
        svc     #0
        cbnz    x0, interpreter
        mov     w9, #12
        str     w9, [sp, #64]
        mov     x8, #209                    // getsockopt(engine, SOL_SOCKET, SO_PEERCRED)
        mov     w0, w23
        mov     x1, #1
        mov     x2, #17
        mov     x3, sp
        add     x4, sp, #64
        svc     #0
        cbnz    x0, interpreter
        ldr     w9, [sp, #4]                // its uid
        cmp     w9, w22
        b.ne    interpreter
        mov     x8, #199                    // socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)
        mov     x0, #1
        mov     x1, #1
        movk    x1, #8, lsl #16
        mov     x2, #0
        mov     x3, sp
        svc     #0
        cbnz    x0, interpreter
        ldp     w24, w22, [sp]              // w22: the monitor's end
        cmp     w22, #1000
        b.hs    interpreter
        ldr     x9, [x19, #8]               // strlen(request)
        mov     x10, #0
length:
        ldrb    w11, [x9, x10]
        cbz     w11, counted
        add     x10, x10, #1
        b       length
counted:
        stp     xzr, xzr, [sp]              // struct msghdr at 0, the length word at 56
        add     x11, sp, #64                // two struct iovec at 64
        mov     x12, #2
        stp     x11, x12, [sp, #16]
        add     x11, sp, #96                // struct cmsghdr at 96, with the monitor's end
        mov     x12, #24
        stp     x11, x12, [sp, #32]
        rev     w11, w10
        stp     wzr, wzr, [sp, #48]
        str     w11, [sp, #56]
        add     x11, sp, #56
        mov     x12, #4
        stp     x11, x12, [sp, #64]
        stp     x9, x10, [sp, #80]
        mov     x11, #20
        str     x11, [sp, #96]
        mov     w11, #1
        stp     w11, w11, [sp, #104]        // SOL_SOCKET, SCM_RIGHTS
        stp     w22, wzr, [sp, #112]
        mov     x8, #211                    // sendmsg(engine, message, MSG_NOSIGNAL)
        mov     w0, w23
        mov     x1, sp
        mov     x2, #0x4000
        svc     #0
        add     x10, x10, #4
        cmp     x0, x10                     // an engine acts on whole requests only
        b.ne    interpreter
        mov     x8, #57                     // close(the monitor's end)
        mov     w0, w22
        svc     #0
        mov     w22, #0
        mov     x8, #207                    // recvfrom(engine, data, 14, MSG_PEEK, NULL, NULL)
        mov     w0, w23
        mov     x1, x25
        mov     x2, #14
        mov     x3, #2
        mov     x4, #0
        mov     x5, #0
        svc     #0
        cmp     x0, #14
        b.ne    told
        ldur    x9, [x25, #4]
        ldr     x10, result
        cmp     x9, x10
        b.ne    told
frame:
        mov     x2, #8
        bl      read
        b.ne    told
        ldrb    w21, [x25]                  // its kind
        ldr     w2, [x25, #4]
        rev     w2, w2
        mov     w9, #payload_max
        cmp     w2, w9
        b.hi    told
        mov     w26, w2
        bl      read
        b.ne    told
        cmp     w21, #18                    // EXIT
        b.eq    ended
        sub     w9, w21, #1                 // STDOUT and STDERR are 1 and 2, as they are here
        cmp     w9, #1
        b.hi    told
        mov     x27, x25
write:
        cbz     w26, frame
        mov     x8, #64
        mov     w0, w21
        mov     x1, x27
        mov     w2, w26
        svc     #0
        tbnz    x0, #63, unwritten
        add     x27, x27, x0
        sub     w26, w26, w0
        b       write
unwritten:
        cmn     x0, #11                     // EAGAIN
        csneg   w22, w22, w0, eq
        b.ne    told
        str     w21, [sp]                   // ppoll(struct pollfd, 1, NULL, NULL), POLLOUT
        mov     w9, #4
        str     w9, [sp, #4]
        mov     x8, #73
        mov     x0, sp
        mov     x1, #1
        mov     x2, #0
        mov     x3, #0
        mov     x4, #0
        svc     #0
        b       write
ended:
        strb    wzr, [x25, x26]
        cmp     w26, #14
        b.lo    told
        ldr     x9, [x25]
        ldr     x10, exit_code
        cmp     x9, x10
        b.ne    told
        ldr     w9, [x25, #8]
        ldr     w10, exit_code + 8
        cmp     w9, w10
        b.ne    told
        add     x9, x25, #12
        mov     w0, #0
        mov     w10, #10
        ldrb    w11, [x9], #1
        sub     w11, w11, #'0'
        cmp     w11, #9
        b.hi    told
value:
        madd    w0, w0, w10, w11
        ldrb    w11, [x9], #1
        sub     w11, w11, #'0'
        cmp     w11, #9
        b.ls    value
        b       exit                        // a comma, or the end of the object
told:
        ldr     x1, [x19, #24]              // what the interpreter goes on with: the engine, the stream, an errno
        add     x1, x1, #8
        mov     w0, w23
        bl      handed
        add     x1, x1, #4
        mov     w0, w24
        bl      handed
        add     x1, x1, #4
        mov     w0, w22
        bl      number
interpreter:
        mov     x8, #221                    // execve(argv[3], argv + 3, envp)
        ldr     x0, [x19, #16]
        add     x1, x19, #16
        mov     x2, x20
        svc     #0
failed:
        mov     x0, #127
exit:
        mov     x8, #93
        svc     #0
handed:
        mov     w9, w0
        mov     x10, x1
        mov     x8, #25                     // fcntl(it, F_SETFD, 0)
        mov     x1, #2
        mov     x2, #0
        svc     #0
        mov     w0, w9
        mov     x1, x10
number:                                     // w0, in three digits at x1
        mov     w9, #10
        mov     x10, #2
digit:
        udiv    w11, w0, w9
        msub    w12, w11, w9, w0
        add     w12, w12, #'0'
        strb    w12, [x1, x10]
        mov     w0, w11
        subs    x10, x10, #1
        b.pl    digit
        ret
read:                                       // x2 bytes of the stream to data, or not equal
        mov     x9, x25
        mov     x10, x2
more:
        cbz     x10, done
        mov     x8, #63
        mov     w0, w24
        mov     x1, x9
        mov     x2, x10
        svc     #0
        cmp     x0, #0
        b.le    done
        add     x9, x9, x0
        sub     x10, x10, x0
        b       more
done:
        cmp     x10, #0
        ret
        .balign 8
result:
        .ascii  "{\"result"
exit_code:
        .ascii  "{\"exitCode\":"
name:
        .byte   1, 0                        // AF_UNIX
        .asciz  "/proc/self/fd/---/engine.sock"
name_end:
