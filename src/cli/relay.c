/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * While the guest runs: terminal <-> console, signals -> requests, and the VMM's last words -> exit status.
 * On a terminal everything is the guest's but Ctrl-A: Ctrl-A X ends the guest, Ctrl-A A sends Ctrl-A, Ctrl-A H helps.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/fd.h"
#include "base/json.h"
#include "base/str.h"
#include "cli/run-int.h"

enum {
    ESCAPE = 1 /* Ctrl-A */, QUIT_GRACE_S = 10, CHUNK = 16384, DRAIN_MS = 2000, FOREGROUND_MS = 500,
    WRITE_MAX = 4096,                   /* a pipe that polls writable takes this much without blocking */
};

struct relay {
    struct run *run;
    bool tty_in;                        /* stdin is a terminal */
    bool tty, escaped, stdin_open, console_open, stdout_open;
    struct termios saved;
    uint8_t in[CHUNK], out[CHUNK];      /* to the console, to stdout: not yet written */
    size_t in_len, out_len;
    int signal_status;                  /* 128 + n when a signal ended the guest */
    uint64_t quit_deadline;
    char end_why[32], end_message[ERR_MSG_SIZE];
    uint64_t end_code;
    bool vmm_gone;
    int vmm_status;
};

static void request_quit(struct relay *y)
{
    static const char msg[] = "{\"command\":\"quit\"}";
    if (!y->quit_deadline) {
        send(y->run->broker_fd, msg, sizeof(msg) - 1, MSG_NOSIGNAL | MSG_DONTWAIT);
        y->quit_deadline = host_clock_ns() + (uint64_t)QUIT_GRACE_S * NS_PER_SEC;
    }
}

/* In the background the terminal is the shell's: neither its modes nor its input are ours. */
static bool foreground(const struct relay *y)
{
    return !y->tty_in || tcgetpgrp(STDIN_FILENO) == getpgrp();
}

static void raw_mode(struct relay *y)
{
    struct termios t;
    if (!y->tty_in || tcgetattr(STDIN_FILENO, &y->saved) < 0) {
        return;
    }
    t = y->saved;
    cfmakeraw(&t);
    t.c_oflag |= OPOST;                 /* our own messages stay readable */
    y->tty = tcsetattr(STDIN_FILENO, TCSANOW, &t) == 0;
}

static void help(void)
{
    static const char text[] = "\r\nCtrl-A X  end the guest at once\r\nCtrl-A A  send Ctrl-A\r\nCtrl-A H  this help\r\n";
    if (write(STDERR_FILENO, text, sizeof(text) - 1) < 0) {
        return;
    }
}

/* Takes typed bytes; escape sequences are ours, the rest goes to the guest. */
static void typed(struct relay *y, const uint8_t *p, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        uint8_t c = p[i];
        if (y->tty && !y->escaped && c == ESCAPE) {
            y->escaped = true;
            continue;
        }
        if (y->escaped) {
            y->escaped = false;
            if (c == 'x' || c == 'X') {
                request_quit(y);
                continue;
            }
            if (c == 'h' || c == 'H' || c == '?') {
                help();
                continue;
            }
            c = c == 'a' || c == 'A' ? ESCAPE : c;
        }
        y->in[y->in_len++] = c;
    }
}

static void read_stdin(struct relay *y)
{
    uint8_t chunk[CHUNK];
    ssize_t n = read(STDIN_FILENO, chunk, sizeof(y->in) - y->in_len);
    if (n > 0) {
        typed(y, chunk, (size_t)n);
    } else if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
        y->stdin_open = false;
        if (y->tty) {
            request_quit(y);            /* the terminal went away */
        }
    }
}

static void write_some(int fd, uint8_t *buf, size_t *len, bool *open)
{
    ssize_t n = write(fd, buf, min_u64(*len, WRITE_MAX));
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
        return;
    }
    if (n < 0) {
        *open = false;
        *len = 0;
        return;
    }
    *len -= (size_t)n;
    memmove(buf, buf + n, *len);
}

static void read_console(struct relay *y)
{
    ssize_t n = read(y->run->console_fd, y->out + y->out_len, sizeof(y->out) - y->out_len);
    if (n > 0) {
        y->out_len += (size_t)n;
    } else if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
        y->console_open = false;
    }
}

/* The VMM's messages: {"event":"end","why":...,"code":...} or {"event":"error","message":...}. */
static void read_broker(struct relay *y)
{
    char msg[4096];
    size_t n_fds = 0;
    ssize_t n = fd_recv(y->run->broker_fd, msg, sizeof(msg), NULL, &n_fds);
    AUTO_JSON struct json_object *o = n > 0 ? json_parse(msg, (size_t)n, NULL) : NULL;
    const char *event = "", *why = "", *message = "";
    if (!o) {
        return;
    }
    json_get_str(o, "event", &event, NULL);
    json_get_str(o, "why", &why, NULL);
    json_get_str(o, "message", &message, NULL);
    json_get_u64(o, "code", &y->end_code, NULL);
    if (strcmp(event, "end") == 0 || strcmp(event, "error") == 0) {
        snprintf(y->end_why, sizeof(y->end_why), "%s", strcmp(event, "error") == 0 ? "error" : why);
        snprintf(y->end_message, sizeof(y->end_message), "%s", message);
    }
}

static void on_signal(struct relay *y, int sig_fd)
{
    struct signalfd_siginfo si;
    if (read(sig_fd, &si, sizeof(si)) == sizeof(si)) {
        y->signal_status = 128 + (int)si.ssi_signo;
        request_quit(y);
    }
}

static void reap(struct relay *y)
{
    if (waitpid(y->run->vmm, &y->vmm_status, WNOHANG) == y->run->vmm) {
        y->vmm_gone = true;
        y->run->vmm = 0;
    }
}

static void one_round(struct relay *y, int sig_fd)
{
    enum { P_STDIN, P_STDOUT, P_CON, P_BROKER, P_SIG, P_VMM, N_P };
    struct run *r = y->run;
    bool con = y->console_open, front = foreground(y);
    if (y->console_open && front && !y->tty) {
        raw_mode(y);
    } else if (!front) {
        y->tty = false;                 /* the shell has set its own modes by now */
    }
    struct pollfd p[N_P] = {
        [P_STDIN] = { con && front && y->stdin_open && y->in_len < sizeof(y->in) ? STDIN_FILENO : -1, POLLIN, 0 },
        [P_STDOUT] = { y->stdout_open && y->out_len ? STDOUT_FILENO : -1, POLLOUT, 0 },
        [P_CON] = { con ? r->console_fd : -1, (short)((y->out_len < sizeof(y->out) ? POLLIN : 0) | (y->in_len ? POLLOUT : 0)), 0 },
        [P_BROKER] = { r->broker_fd, POLLIN, 0 },
        [P_SIG] = { sig_fd, POLLIN, 0 },
        [P_VMM] = { r->vmm_pidfd, POLLIN, 0 },
    };
    if (poll(p, N_P, y->quit_deadline ? 200 : front ? -1 : FOREGROUND_MS) < 0) {
        return;
    }
    if (p[P_BROKER].revents & POLLIN) {
        read_broker(y);
    }
    if (p[P_SIG].revents) {
        on_signal(y, sig_fd);
    }
    if (p[P_STDIN].revents) {
        read_stdin(y);
    }
    if (p[P_CON].revents & POLLOUT && y->in_len) {
        write_some(r->console_fd, y->in, &y->in_len, &y->console_open);
    }
    if (p[P_CON].revents & (POLLIN | POLLHUP | POLLERR)) {
        read_console(y);
    }
    if (p[P_STDOUT].revents) {
        write_some(STDOUT_FILENO, y->out, &y->out_len, &y->stdout_open);
        if (!y->stdout_open) {
            request_quit(y);            /* nobody reads our output any more */
        }
    }
    if (p[P_VMM].revents) {
        reap(y);
    }
    if (!y->stdout_open) {
        y->out_len = 0;
    }
    if (y->quit_deadline && host_clock_ns() > y->quit_deadline && !y->vmm_gone) {
        kill(r->vmm, SIGKILL);
    }
}

/* What the guest printed before it ended, and the VMM's last message. */
static void drain(struct relay *y)
{
    read_broker(y);
    uint64_t deadline = host_clock_ns() + (uint64_t)DRAIN_MS * NS_PER_MS;
    while ((y->console_open || y->out_len) && y->stdout_open && host_clock_ns() < deadline) {
        if (y->console_open && y->out_len < sizeof(y->out)) {
            read_console(y);
        }
        struct pollfd p = { STDOUT_FILENO, POLLOUT, 0 };
        if (y->out_len && poll(&p, 1, 100) > 0) {
            write_some(STDOUT_FILENO, y->out, &y->out_len, &y->stdout_open);
        }
    }
}

static int exit_status(const struct relay *y)
{
    if (y->signal_status) {
        return y->signal_status;
    }
    if (strcmp(y->end_why, "debug-exit") == 0) {
        return (int)(y->end_code & 0xff);
    }
    if (strcmp(y->end_why, "shutdown") == 0 || strcmp(y->end_why, "reset") == 0 || strcmp(y->end_why, "quit") == 0) {
        return EXIT_SUCCESS;
    }
    if (strcmp(y->end_why, "panic") == 0 || strcmp(y->end_why, "triple-fault") == 0) {
        fprintf(stderr, "error: the guest %s\n", y->end_why[0] == 'p' ? "panicked" : "crashed (triple fault)");
        return EXIT_FAILURE;
    }
    AUTO_BUF struct buf text = { 0 };
    str_escape(&text, y->end_message, strlen(y->end_message));
    if (text.len) {
        fprintf(stderr, "error: %s\n", buf_str(&text));
    } else if (WIFSIGNALED(y->vmm_status)) {
        fprintf(stderr, "error: lodge-vmm was killed by signal %d (%s)\n", WTERMSIG(y->vmm_status), strsignal(WTERMSIG(y->vmm_status)));
    } else {
        fprintf(stderr, "error: lodge-vmm ended without a reason (status %d)\n", WEXITSTATUS(y->vmm_status));
    }
    return EXIT_OWN_FAILURE;
}

int run_relay(struct run *r)
{
    AUTO_FREE struct relay *y = new0(struct relay);
    y->run = r;
    y->tty_in = isatty(STDIN_FILENO);
    y->stdin_open = y->stdout_open = true;
    y->console_open = r->console_fd >= 0;
    AUTO_FD int sig_fd = signalfd(-1, &r->signals, SFD_CLOEXEC | SFD_NONBLOCK);
    if (y->console_open) {
        fd_set_nonblock(r->console_fd, true);
    }
    fd_set_nonblock(r->broker_fd, true);
    while (!y->vmm_gone) {
        one_round(y, sig_fd);
    }
    drain(y);
    if (y->tty && foreground(y)) {
        tcsetattr(STDIN_FILENO, TCSADRAIN, &y->saved);
    }
    return exit_status(y);
}
