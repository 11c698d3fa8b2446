/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The parent of the probe. The steps run in a child, because an ioctl of a broken /dev/kvm may never come back; the child
 * has a watch of its own a step, and when even that does not help we name the step it was in and leave without it.
 */
#include "vmm/probe.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/json.h"
#include "vmm/probe-int.h"

enum { SILENCE_MS = 1000, TOTAL_MS = 3000 };

static const struct {
    const char *key;            /* in the answer; NULL: none of its own */
    const char *text;
} steps[N_PROBE_STEPS] = {
    [PROBE_OPEN] = { NULL, "opening /dev/kvm" },
    [PROBE_API] = { NULL, "the API version" },
    [PROBE_VM] = { NULL, "making a VM" },
    [PROBE_MEMORY] = { NULL, "giving the VM memory" },
    [PROBE_VCPU] = { NULL, "making a vCPU" },
    [PROBE_CPUID] = { NULL, "setting the vCPU's CPUID" },
    [PROBE_REAL] = { "real-mode", "real mode" },
    [PROBE_PROTECTED] = { "protected-mode", "protected mode" },
    [PROBE_LONG] = { "long-mode", "long mode with paging" },
    [PROBE_INTERRUPT] = { "interrupt", "an interrupt" },
    [PROBE_USER] = { "user-mode", "user mode and a system call" },
    [PROBE_SPEED] = { "speed", "speed" },
};

struct probe {
    bool passed[N_PROBE_STEPS];
    bool over;                  /* a step failed, or all passed */
    uint32_t step;              /* the last one begun */
    int open_errno, api;
    char reason[300];
};

static void take_report(struct probe *p, const struct probe_report *r)
{
    if (r->step >= N_PROBE_STEPS) {
        return;
    }
    p->step = r->step;
    if (r->begun) {
        return;
    }
    p->passed[r->step] = r->ok;
    if (r->step == PROBE_OPEN) {
        p->open_errno = r->value;
    } else if (r->step == PROBE_API) {
        p->api = r->value;
    }
    p->over = !r->ok || r->step == N_PROBE_STEPS - 1;
    if (!r->ok) {
        snprintf(p->reason, sizeof(p->reason), "%s: %.200s", steps[r->step].text, r->why);
    }
}

/* Reads reports until it is over, the child is gone or silent. */
static void listen_to(struct probe *p, int fd)
{
    uint64_t end = host_clock_ns() + (uint64_t)TOTAL_MS * NS_PER_MS;
    while (!p->over) {
        uint64_t now = host_clock_ns();
        struct pollfd w = { .fd = fd, .events = POLLIN };
        int left = now >= end ? 0 : (int)min_u64((end - now) / NS_PER_MS, SILENCE_MS);
        struct probe_report r;
        if (poll(&w, 1, left) <= 0) {
            snprintf(p->reason, sizeof(p->reason), "%s: it hangs, even a signal does not end it", steps[p->step].text);
            return;
        }
        if (fd_read_full(fd, &r, sizeof(r)) != sizeof(r)) {
            return;
        }
        r.why[sizeof(r.why) - 1] = '\0';
        take_report(p, &r);
    }
}

/* Kills the child and waits a little; one that hangs in the kernel is left to init. */
static void end_child(struct probe *p, pid_t pid)
{
    int status;
    kill(pid, SIGKILL);
    for (int i = 0; i < PROBE_STEP_MS; i++) {
        if (waitpid(pid, &status, WNOHANG) != 0) {
            if (!p->over && !p->reason[0]) {
                snprintf(p->reason, sizeof(p->reason), "%s: the probe was killed by signal %d", steps[p->step].text, WIFSIGNALED(status) ? WTERMSIG(status) : 0);
            }
            return;
        }
        poll(NULL, 0, 1);
    }
}

static void print(const struct probe *p)
{
    AUTO_JSON struct json_object *o = json_object_new_object();
    struct json_object *kvm = json_object_new_object();
    bool usable = true;
    for (int i = 0; i < N_PROBE_STEPS; i++) {
        usable = usable && p->passed[i];
    }
    bool present = p->passed[PROBE_OPEN] || (p->open_errno != ENOENT && p->open_errno != ENODEV && p->open_errno != ENXIO);
    json_object_object_add(kvm, "present", json_object_new_boolean(present));
    json_object_object_add(kvm, "permitted", json_object_new_boolean(p->passed[PROBE_OPEN]));
    json_object_object_add(kvm, "usable", json_object_new_boolean(usable));
    if (p->api) {
        json_object_object_add(kvm, "api", json_object_new_int(p->api));
    }
    for (int i = 0; i < N_PROBE_STEPS; i++) {
        if (steps[i].key) {
            json_object_object_add(kvm, steps[i].key, json_object_new_boolean(p->passed[i]));
        }
    }
    if (!usable) {
        json_object_object_add(kvm, "reason", json_object_new_string(p->reason));
    }
    json_object_object_add(o, "kvm", kvm);
    printf("%s\n", json_object_to_json_string_ext(o, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE));
}

int probe_main(void)
{
    struct probe p = { .over = false };
    int fds[2];
    if (pipe(fds) < 0) {
        fprintf(stderr, "error: pipe: %s\n", strerror(errno));
        return EXIT_FAILURE;
    }
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        close(fds[0]);
        close(STDOUT_FILENO);           /* whoever reads our answer must not wait for a child that hangs */
        probe_guest_run(fds[1]);
        _exit(EXIT_SUCCESS);
    }
    close(fds[1]);
    if (pid < 0) {
        fprintf(stderr, "error: fork: %s\n", strerror(errno));
        return EXIT_FAILURE;
    }
    listen_to(&p, fds[0]);
    end_child(&p, pid);
    print(&p);
    return EXIT_SUCCESS;
}
