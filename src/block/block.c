/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Node and request path. A request goes to a small pool of workers, which make the blocking call, and comes back through one
 * eventfd on the node's loop. Workers are started at open, before the process closes its sandbox; they never allocate.
 */
#include "block/block.h"

#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "base/iov.h"
#include "base/log.h"
#include "block/block-int.h"

static int perform(struct blk_node *n, struct blk_req *r)
{
    switch (r->op) {
    case BLK_READ:
        return blk_raw_read(&n->raw, r->off, r->len, r->iov, r->n_iov);
    case BLK_WRITEV:
        return blk_raw_write(&n->raw, r->off, r->len, r->iov, r->n_iov);
    case BLK_FLUSH:
        break;
    case BLK_DISCARD_OP:
        return n->flags & BLK_DISCARD ? blk_raw_discard(&n->raw, r->off, r->len) : 0;
    case BLK_ZERO:
        return blk_raw_zero(&n->raw, r->off, r->len, false);
    case BLK_ZERO_UNMAP:
        return blk_raw_zero(&n->raw, r->off, r->len, (n->flags & BLK_DISCARD) != 0);
    default:
        return -EINVAL;
    }
    int ret = atomic_load(&n->flush_error);
    if (ret == 0 && n->flags & BLK_WRITE && (ret = blk_raw_flush(&n->raw)) < 0) {
        atomic_store(&n->flush_error, ret);
        log_error("block", "'%s': flush failed (%s); data written before it may be lost", n->name, strerror(-ret));
    }
    return ret;
}

/* What can be said without touching the file. */
static int check(const struct blk_node *n, const struct blk_req *r)
{
    switch (r->op) {
    case BLK_FLUSH:
        return 0;
    case BLK_READ:
    case BLK_WRITEV:
        if (iov_total(r->iov, r->n_iov) != r->len) {
            return -EINVAL;
        }
        break;
    case BLK_DISCARD_OP:
    case BLK_ZERO:
    case BLK_ZERO_UNMAP:
        break;
    default:
        return -EINVAL;
    }
    if (!range_ok(r->off, r->len, n->rounded)) {
        return -EINVAL;
    }
    return r->op != BLK_READ && !(n->flags & BLK_WRITE) ? -EROFS : 0;
}

static void finish_locked(struct blk_node *n, struct blk_req *r, int ret)
{
    uint64_t one = 1;
    r->ret = ret;
    if (list_empty(&n->finished)) {
        (void)!write(n->deliver.fd, &one, sizeof(one));
    }
    list_add_tail(&n->finished, &r->node);
    pthread_cond_broadcast(&n->idle);
}

static void *worker(void *arg)
{
    struct blk_node *n = arg;
    prctl(PR_SET_NAME, "block");        /* pthread_setname_np from outside would open a file */
    pthread_mutex_lock(&n->lock);
    for (;;) {
        while (list_empty(&n->queue) && !n->stop) {
            pthread_cond_wait(&n->work, &n->lock);
        }
        if (list_empty(&n->queue)) {
            break;
        }
        struct blk_req *r = list_entry(n->queue.next, struct blk_req, node);
        list_del(&r->node);
        pthread_mutex_unlock(&n->lock);
        int ret = perform(n, r);
        pthread_mutex_lock(&n->lock);
        finish_locked(n, r, ret);
    }
    pthread_mutex_unlock(&n->lock);
    return NULL;
}

/* Calls done of what is finished. Loop thread. */
static void deliver_finished(struct blk_node *n)
{
    pthread_mutex_lock(&n->lock);
    while (!list_empty(&n->finished)) {
        struct blk_req *r = list_entry(n->finished.next, struct blk_req, node);
        list_del(&r->node);
        pthread_mutex_unlock(&n->lock);
        r->done(r, r->ret);             /* r may be gone */
        pthread_mutex_lock(&n->lock);
        n->in_flight--;
        pthread_cond_broadcast(&n->idle);
    }
    pthread_mutex_unlock(&n->lock);
}

static void on_deliver(struct loop_fd *w, uint32_t events)
{
    uint64_t count;
    (void)!read(w->fd, &count, sizeof(count));
    deliver_finished(container_of(w, struct blk_node, deliver));
}

static bool start_workers(struct blk_node *n, struct err *err)
{
    pthread_attr_t attr;
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, BLK_WORKER_STACK);
    int r = 0;
    while (n->n_workers < BLK_WORKERS && (r = pthread_create(&n->worker[n->n_workers], &attr, worker, n)) == 0) {
        n->n_workers++;
    }
    pthread_attr_destroy(&attr);
    return r == 0 || err_set_errno(err, r, "cannot start a worker thread");
}

static void node_free(struct blk_node *n)
{
    pthread_mutex_lock(&n->lock);
    n->stop = true;
    pthread_cond_broadcast(&n->work);
    pthread_mutex_unlock(&n->lock);
    for (unsigned i = 0; i < n->n_workers; i++) {
        pthread_join(n->worker[i], NULL);       /* the queue is empty then */
    }
    loop_fd_del(&n->deliver);
    deliver_finished(n);
    blk_unlock(n);
    auto_fd_fn(&n->deliver.fd);
    close(n->raw.fd);
    pthread_cond_destroy(&n->work);
    pthread_cond_destroy(&n->idle);
    pthread_mutex_destroy(&n->lock);
    free(n->name);
    free(n);
}

struct blk_node *blk_open_fd(struct loop *loop, int take_fd, const char *format, const char *name, unsigned flags, struct err *err)
{
    if (strcmp(format, "raw") != 0) {
        close(take_fd);
        err_set(err, ERR_UNSUPPORTED, "format '%s' is not known (there is: raw)", format);
        return NULL;
    }
    struct blk_node *n = new0(struct blk_node);
    n->raw.fd = take_fd;
    n->name = str_dup(name);
    n->flags = flags;
    n->loop = loop;
    n->deliver.fn = on_deliver;
    n->deliver.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    list_init(&n->queue);
    list_init(&n->finished);
    pthread_mutex_init(&n->lock, NULL);
    pthread_cond_init(&n->work, NULL);
    pthread_cond_init(&n->idle, NULL);
    if (n->deliver.fd < 0) {
        err_set_errno(err, errno, "cannot make an eventfd");
    } else if (blk_raw_init(&n->raw, take_fd, flags & BLK_WRITE, err) && blk_lock(n, err) && start_workers(n, err) && loop_fd_add(loop, &n->deliver, EPOLLIN, err)) {
        n->rounded = (n->raw.size + BLK_SECTOR - 1) / BLK_SECTOR * BLK_SECTOR;
        return n;
    }
    node_free(n);
    return NULL;
}

void blk_close(struct blk_node *n)
{
    if (n) {
        node_free(n);
    }
}

uint64_t blk_size(const struct blk_node *n)
{
    return n->rounded;
}

bool blk_writable(const struct blk_node *n)
{
    return n->flags & BLK_WRITE;
}

bool blk_can_discard(const struct blk_node *n)
{
    return n->flags & BLK_WRITE && n->flags & BLK_DISCARD;
}

void blk_submit(struct blk_node *n, struct blk_req *r)
{
    int ret = check(n, r);
    pthread_mutex_lock(&n->lock);
    n->in_flight++;
    if (ret < 0) {
        finish_locked(n, r, ret);
    } else {
        list_add_tail(&n->queue, &r->node);
        pthread_cond_signal(&n->work);
    }
    pthread_mutex_unlock(&n->lock);
}

static void wait_idle(struct blk_node *n, bool deliver)
{
    pthread_mutex_lock(&n->lock);
    while (n->in_flight) {
        if (deliver && !list_empty(&n->finished)) {
            pthread_mutex_unlock(&n->lock);
            deliver_finished(n);
            pthread_mutex_lock(&n->lock);
        } else {
            pthread_cond_wait(&n->idle, &n->lock);
        }
    }
    pthread_mutex_unlock(&n->lock);
}

/* On the loop's thread the done callbacks are ours to call; elsewhere they are waited for. */
void blk_drain(struct blk_node *n)
{
    wait_idle(n, loop_is_current(n->loop));
}

void blk_finish(struct blk_node *n)
{
    wait_idle(n, true);
}

bool blk_set_loop(struct blk_node *n, struct loop *loop, struct err *err)
{
    loop_fd_del(&n->deliver);
    n->loop = loop;
    return loop_fd_add(loop, &n->deliver, EPOLLIN, err);
}
