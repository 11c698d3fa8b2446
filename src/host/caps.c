/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "host/caps.h"

#include <dirent.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "host/launch.h"

enum { PROC_MAX = 4 * MIB, PROBE_MS = 5000 };

static void add(struct json_object *list, const char *check, const char *result, struct json_object *value, const char *detail, const char *advice)
{
    struct json_object *o = json_object_new_object();
    json_object_object_add(o, "check", json_object_new_string(check));
    json_object_object_add(o, "result", json_object_new_string(result));
    json_object_object_add(o, "value", value);
    json_object_object_add(o, "detail", json_object_new_string(detail));
    if (advice) {
        json_object_object_add(o, "advice", json_object_new_string(advice));
    }
    json_object_array_add(list, o);
}

/* The words of the first "flags" line hold `flag`. */
static bool cpu_flag(const char *cpuinfo, const char *flag)
{
    const char *line = strstr(cpuinfo, "\nflags");
    const char *end = line ? strchr(line + 1, '\n') : NULL;
    size_t len = strlen(flag);
    for (const char *p = line; p && end && (p = strstr(p, flag)) && p < end; p += len) {
        if (p[-1] == ' ' && (p[len] == ' ' || p[len] == '\n')) {
            return true;
        }
    }
    return false;
}

static void check_cpu(struct json_object *list)
{
    AUTO_FREE char *info = file_read("/proc/cpuinfo", PROC_MAX, NULL, NULL);
    const char *text = info ? info : "";
    bool vmx = cpu_flag(text, "vmx"), svm = cpu_flag(text, "svm");
    if (vmx || svm) {
        add(list, "cpu-virtualization", "pass", json_object_new_string(vmx ? "vmx" : "svm"), vmx ? "Intel VT-x (vmx)" : "AMD-V (svm)", NULL);
    } else {
        add(list, "cpu-virtualization", "warn", json_object_new_string("none"), "neither vmx nor svm in /proc/cpuinfo",
            "switch virtualization on in the firmware, or ask the provider for nested virtualization; until then guests run on the soft engine");
    }
    static const char *const wanted[] = { "avx2", "bmi2", "fsgsbase", "aes" };
    char missing[64] = "";
    for (size_t i = 0; i < ARRAY_SIZE(wanted); i++) {
        if (!cpu_flag(text, wanted[i])) {
            snprintf(missing + strlen(missing), sizeof(missing) - strlen(missing), "%s%s", missing[0] ? " " : "", wanted[i]);
        }
    }
    if (missing[0]) {
        AUTO_FREE char *detail = str_fmt("the CPU lacks %s", missing);
        add(list, "cpu-features", "warn", json_object_new_string(missing), detail, "guests do without these features as well");
    } else {
        add(list, "cpu-features", "pass", json_object_new_string(""), "a guest's --cpu max has AVX2, BMI2, FSGSBASE and AES", NULL);
    }
}

struct json_object *host_probe(struct err *err)
{
    AUTO_FREE char *path = launch_find("lodge-vmm", err);
    AUTO_FREE char *out = NULL;
    char *argv[] = { path, "--probe", NULL };
    int status = 0;
    if (!path || !launch_output(path, argv, PROBE_MS, 64 * KIB, &out, &status, err)) {
        return NULL;
    }
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
        err_set(err, ERR_GENERIC, "lodge-vmm --probe ended with status %#x", status);
        return NULL;
    }
    return json_parse(out, strlen(out), err);
}

static bool kvm_member(struct json_object *kvm, const char *key)
{
    bool v = false;
    return json_get_bool(kvm, key, &v, NULL) && v;
}

static void check_kvm(struct json_object *list)
{
    struct err err = ERR_INIT;
    AUTO_JSON struct json_object *o = host_probe(&err);
    struct json_object *kvm = NULL;
    if (!o || !json_get_obj(o, "kvm", &kvm, &err) || !kvm) {
        add(list, "kvm", "fail", json_object_new_boolean(false), err.msg, "reinstall Lodge: the probe itself failed");
        return;
    }
    const char *reason = "", *detail;
    json_get_str(kvm, "reason", &reason, NULL);
    bool present = kvm_member(kvm, "present"), permitted = kvm_member(kvm, "permitted"), usable = kvm_member(kvm, "usable");
    detail = usable ? "real, protected and long mode and an interrupt ran under KVM" : reason;
    add(list, "kvm-present", present ? "pass" : "warn", json_object_new_boolean(present), present ? "/dev/kvm is there" : "/dev/kvm is missing",
        present ? NULL : "load kvm_intel or kvm_amd ('modprobe kvm_amd'); in a container, pass /dev/kvm in");
    if (present) {
        add(list, "kvm-permitted", permitted ? "pass" : "warn", json_object_new_boolean(permitted), permitted ? "it can be opened" : reason,
            permitted ? NULL : "add your user to the group of /dev/kvm ('usermod -aG kvm USER') and log in again");
    }
    if (permitted) {
        add(list, "kvm-usable", usable ? "pass" : "warn", json_object_new_boolean(usable), detail,
            usable ? NULL : "this /dev/kvm cannot run a whole guest; guests run on the soft engine");
    }
}

static uint64_t meminfo_kib(const char *text, const char *key)
{
    const char *p = strstr(text, key);
    return p ? strtoull(p + strlen(key), NULL, 10) : 0;
}

static void check_memory(struct json_object *list)
{
    AUTO_FREE char *text = file_read("/proc/meminfo", PROC_MAX, NULL, NULL);
    uint64_t total = text ? meminfo_kib(text, "MemTotal:") : 0, avail = text ? meminfo_kib(text, "MemAvailable:") : 0;
    uint64_t huge = text ? meminfo_kib(text, "HugePages_Total:") : 0;
    AUTO_FREE char *detail = str_fmt("%" PRIu64 " MiB, %" PRIu64 " MiB available", total / KIB, avail / KIB);
    bool low = avail < 512 * KIB;
    add(list, "memory", low ? "warn" : "pass", json_object_new_uint64(total * KIB), detail, low ? "less than 512 MiB is available: stop something, or give guests less --memory" : NULL);
    AUTO_FREE char *thp = file_read("/sys/kernel/mm/transparent_hugepage/enabled", 256, NULL, NULL);
    bool thp_on = thp && !strstr(thp, "[never]");
    AUTO_FREE char *hdetail = str_fmt("%" PRIu64 " reserved; transparent huge pages %s", huge, thp_on ? "on" : "off");
    add(list, "huge-pages", huge || thp_on ? "pass" : "warn", json_object_new_uint64(huge), hdetail,
        huge || thp_on ? NULL : "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled");
}

static void check_cores(struct json_object *list)
{
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    AUTO_FREE char *detail = str_fmt("%ld online", n);
    add(list, "cores", n > 1 ? "pass" : "warn", json_object_new_int64(n), detail, n > 1 ? NULL : "one core runs guest and devices in turn: a second one helps");
}

static void check_iommu(struct json_object *list)
{
    unsigned groups = 0;
    DIR *d = opendir("/sys/kernel/iommu_groups");
    for (struct dirent *e; d && (e = readdir(d)) != NULL;) {
        groups += e->d_name[0] != '.';
    }
    if (d) {
        closedir(d);
    }
    AUTO_FREE char *detail = str_fmt("%u groups", groups);
    add(list, "iommu", groups ? "pass" : "warn", json_object_new_int64(groups), detail,
        groups ? NULL : "only needed to hand devices to guests: switch VT-d or AMD-Vi on in the firmware and boot with intel_iommu=on");
}

static void check_packages(struct json_object *list)
{
    static const struct {
        const char *program, *package, *why;
    } tools[] = {
        { "busybox", "busybox-static", "quickstart's small guest" },
        { "cpio", "cpio", "quickstart's initramfs" },
        { "mmdebstrap", "mmdebstrap", "quickstart --debian" },
        { "mke2fs", "e2fsprogs", "quickstart --debian" },
    };
    static const char *const dirs[] = { "/usr/bin", "/bin", "/usr/sbin", "/sbin", "/usr/local/bin" };
    for (size_t i = 0; i < ARRAY_SIZE(tools); i++) {
        bool found = false;
        for (size_t d = 0; d < ARRAY_SIZE(dirs) && !found; d++) {
            AUTO_FREE char *path = str_fmt("%s/%s", dirs[d], tools[i].program);
            found = access(path, X_OK) == 0;
        }
        AUTO_FREE char *check = str_fmt("package-%s", tools[i].package), *detail = str_fmt("%s, for %s", found ? "installed" : "missing", tools[i].why);
        AUTO_FREE char *advice = str_fmt("apt-get install %s", tools[i].package);
        add(list, check, found ? "pass" : "warn", json_object_new_boolean(found), detail, found ? NULL : advice);
    }
    struct err err = ERR_INIT;
    AUTO_FREE char *slirp = launch_find("lodge-slirp", &err);
    add(list, "user-networking", slirp ? "pass" : "warn", json_object_new_boolean(slirp != NULL), slirp ? "lodge-slirp is there" : err.msg,
        slirp ? NULL : "build with libslirp-dev installed");
}

struct json_object *host_checks(bool probe)
{
    struct json_object *list = json_object_new_array();
    check_cpu(list);
    if (probe) {
        check_kvm(list);
    }
    check_memory(list);
    check_cores(list);
    check_iommu(list);
    check_packages(list);
    return list;
}
