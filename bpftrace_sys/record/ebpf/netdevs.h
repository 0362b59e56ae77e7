/* SPDX-License-Identifier: GPL-2.0-only
 *
 * What an interface's number means in the network namespace of the caller: its name, and which XDP
 * programs run there, and how. Afterwards the namespace may be gone.
 */
#pragma once
#include "output.h"

#define BUCKETS 256 /* NETDEV_HASHENTRIES, include/linux/netdevice.h */
#define CHAIN 64    /* interfaces of one bucket that are looked at */

struct netdev {
	u8 name[16];
	u32 modes;    /* a bit for each enum bpf_xdp_mode in which a program runs: skb, drv, hw */
	u32 netns;    /* the inode of the caller's network namespace */
	u32 progs[3]; /* by mode, the programs' ids */
	u32 _;
};

static long one_netdev(u32 index, struct state **ctx)
{
	struct state *st = *ctx;
	struct hlist_node *node = st->netdev;
	struct net_device *dev;
	s32 ifindex = 0;

	if (!node)
		return 1;
	dev = (void *)node - field_offset(((struct net_device *)0)->index_hlist);
	READ(ifindex, dev->ifindex);
	if ((u32)ifindex == st->pos) {
		st->span = (u64)dev;
		return 1;
	}
	READ(st->netdev, node->next);
	return 0;
}

/* The program of a mode, as dev_xdp_prog() has it. */
INLINE u32 xdp_prog(struct bpf_xdp_entity *entity)
{
	struct bpf_prog_aux *aux = 0;
	struct bpf_prog *prog = 0;
	struct bpf_xdp_link *link = 0;
	u32 id = 0;

	READ(link, entity->link);
	if (link)
		READ(prog, link->link.prog);
	else
		READ(prog, entity->prog);
	if (!prog)
		return 0;
	READ(aux, prog->aux);
	READ(id, aux->id);
	return id;
}

/* Tells of an interface; with an empty name where there is none of that number. */
NOINLINE long ask_netdev(struct state *st, u32 number)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct netdev *told = (void *)st->fact;
	struct state *ctx = st;
	struct nsproxy *proxy = 0;
	struct net *net = 0;
	struct hlist_head *heads = 0;
	struct net_device *dev;

	st->fact[0] = st->fact[1] = st->fact[2] = st->fact[3] = st->fact[4] = 0;
	READ(proxy, task->nsproxy);
	READ(net, proxy->net_ns);
	READ(told->netns, net->ns.inum);
	READ(heads, net->dev_index_head);
	bpf_probe_read_kernel(&st->netdev, sizeof(st->netdev), heads + (number & (BUCKETS - 1)));
	st->pos = number;
	st->span = 0;
	bpf_loop(CHAIN, one_netdev, &ctx, 0);
	dev = (void *)st->span;
	if (dev) {
		READ(told->name, dev->name);
		for (u32 mode = 0; mode < 3; mode++) {
			u32 prog = xdp_prog(&dev->xdp_state[mode]);

			told->progs[mode] = prog;
			if (prog)
				told->modes |= 1u << mode;
		}
	}
	return tell(st, number, told, sizeof(*told), ASKED);
}
