/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "net/net.h"

void net_port_attach(struct net_port *p, struct net_user *u, pthread_mutex_t *lock)
{
    p->user = u;
    p->user_lock = lock;
    p->ops->attached(p);
}

void net_port_close(struct net_port *p)
{
    if (p) {
        p->ops->close(p);
    }
}
