/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Intrusive doubly linked list. A head is a struct list too; an unlinked node points at itself. */
#ifndef LODGE_BASE_LIST_H
#define LODGE_BASE_LIST_H

#include "base/base.h"

struct list {
    struct list *prev, *next;
};

#define LIST_INIT(name) { &(name), &(name) }

static inline void list_init(struct list *l)
{
    l->prev = l->next = l;
}

static inline bool list_empty(const struct list *l)
{
    return l->next == l;
}

static inline void list_insert_before(struct list *at, struct list *node)
{
    node->prev = at->prev;
    node->next = at;
    at->prev->next = node;
    at->prev = node;
}

static inline void list_add_tail(struct list *head, struct list *node)
{
    list_insert_before(head, node);
}

static inline void list_add_head(struct list *head, struct list *node)
{
    list_insert_before(head->next, node);
}

/* Unlinks; harmless on a node that is not linked. */
static inline void list_del(struct list *node)
{
    node->prev->next = node->next;
    node->next->prev = node->prev;
    list_init(node);
}

#define list_entry(node, type, member) container_of(node, type, member)
/* `it` may be removed inside the loop. */
#define list_for_each(it, head, type, member)                                                           \
    for (type *it = list_entry((head)->next, type, member), *it##_next;                                 \
         &it->member != (head) && (it##_next = list_entry(it->member.next, type, member), true);        \
         it = it##_next)

#endif
