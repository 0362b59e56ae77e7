/* SPDX-License-Identifier: GPL-2.0-only
 *
 * What an fd of the tracee is: its file, and of BPF's own files the object behind it. From user
 * space this cannot be told in time: most of these fds live for microseconds.
 */
#pragma once
#include "output.h"

/* Of each enum fd_kind the f_op of its files; bpfstrace_learn sees them on fds of ours. */
volatile u64 operations[FD_KINDS];
const volatile u32 cpus = 1;

#define ANON_INODE_FS 0x09041934 /* include/uapi/linux/magic.h */
#define BPF_FS 0xcafe4a11
#define CUT 0x80  /* in the magic's upper half: directories are missing */
#define GONE 0x40 /* the same: the file was removed, as d_unlinked() says */
#define TOP 0x20  /* the same: it is the root of its file system */

INLINE struct file *file_of(u32 fd)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct files_struct *files = 0;
	struct fdtable *fdt = 0;
	struct file **slots = 0, *file = 0;
	u32 count = 0;

	READ(files, task->files);
	if (!files)
		return 0;
	READ(fdt, files->fdt);
	READ(count, fdt->max_fds);
	if (fd >= count)
		return 0;
	READ(slots, fdt->fd);
	bpf_probe_read_kernel(&file, sizeof(file), slots + fd);
	return file;
}

/* Of files that are no inode's, the name says what they are (anon_inode_getfd()). */
INLINE u32 by_name(struct file *file)
{
	struct inode *inode = 0;
	struct super_block *sb = 0;
	struct dentry *dentry = 0, *parent = 0;
	unsigned long magic = 0;
	const u8 *name = 0;
	u64 begins = 0;

	READ(inode, file->f_inode);
	READ(sb, inode->i_sb);
	READ(magic, sb->s_magic);
	READ(dentry, file->f_path.dentry);
	READ(parent, dentry->d_parent);
	/* A token is a pseudo file of a bpffs: what is pinned there has a folder above it. */
	if (magic != ANON_INODE_FS && (magic != BPF_FS || parent != dentry))
		return OTHER_FILE;
	READ(name, dentry->d_name.name);
	bpf_probe_read_kernel(&begins, sizeof(begins), name);
	if (begins == 0x6b6e696c5f667062) /* bpf_link */
		return LINK;
	return begins == 0x656b6f742d667062 ? TOKEN : OTHER_FILE; /* bpf-toke(n) */
}

INLINE u32 kind_of(struct file *file)
{
	u64 f_op = 0;

	READ(f_op, file->f_op);
	for (u32 kind = MAP; kind < OTHER_FILE; kind++)
		if (operations[kind] == f_op)
			return f_op ? kind : NO_FD;
	/* Some links have an f_op of their own, and nobody has a token to learn from. */
	return by_name(file);
}

/* One component of a path, from its end: a length, then the name. */
static long component(u32 index, struct state **ctx)
{
	struct state *st = *ctx;
	struct dentry *dentry = st->dentry, *root = 0, *parent = 0;
	struct mount *mount = st->mount, *outer = 0;
	const u8 *name = 0;
	u32 pos = st->pos;
	long got;

	READ(root, mount->mnt.mnt_root);
	READ(parent, dentry->d_parent);
	if (dentry == root || dentry == parent) {
		READ(outer, mount->mnt_parent);
		if (outer == mount || !outer)
			return 1;
		READ(st->dentry, mount->mnt_mountpoint);
		st->mount = outer;
		return 0;
	}
	if (pos > SLOT - 64) { /* names are that short, mostly */
		st->path[7] |= CUT;
		return 1;
	}
	READ(name, dentry->d_name.name);
	got = bpf_probe_read_kernel_str(&st->path[pos + 1], SLOT - 1, name);
	if (got < 0)
		return 1;
	if (pos + 1 + got > SLOT) {
		st->path[7] |= CUT;
		return 1;
	}
	st->path[pos] = got;
	st->pos = pos + 1 + got;
	st->dentry = parent;
	return 0;
}

/* To st->path, as long as st->pos says: the file system's magic, the inode; then the path's
 * components, as many as have room. */
NOINLINE long path_of(struct state *st, struct file *file)
{
	struct state *ctx = st;
	struct inode *inode = 0;
	struct super_block *sb = 0;
	struct vfsmount *mnt = 0;

	READ(inode, file->f_inode);
	READ(*(u64 *)&st->path[8], inode->i_ino);
	READ(sb, inode->i_sb);
	*(u64 *)&st->path[0] = 0;
	READ(*(u64 *)&st->path[0], sb->s_magic);
	READ(st->dentry, file->f_path.dentry);
	READ(mnt, file->f_path.mnt);
	st->pos = 16;
	if (*(u64 *)&st->path[0] == ANON_INODE_FS) {
		const u8 *name = 0;
		long got;

		READ(name, st->dentry->d_name.name);
		got = bpf_probe_read_kernel_str(&st->path[17], 64, name);
		st->path[16] = got > 0 ? got : 0;
		if (got > 0)
			st->pos = 17 + got;
	} else {
		struct dentry *parent = 0, *top = 0;
		void *hashed = 0;

		READ(top, sb->s_root);
		if (top == st->dentry)
			st->path[7] |= TOP;
		READ(parent, st->dentry->d_parent);
		READ(hashed, st->dentry->d_hash.pprev);
		if (!hashed && parent != st->dentry)
			st->path[7] |= GONE;
		st->mount = (void *)mnt - field_offset(((struct mount *)0)->mnt);
		bpf_loop(COMPONENTS, component, &ctx, 0);
	}
	return 0;
}

INLINE long other_file(struct state *st, u32 fd, struct file *file)
{
	path_of(st, file);
	return tell(st, fd | (u64)OTHER_FILE << 32, st->path, st->pos, FD);
}

INLINE void identify_prog(u32 *id, u64 *tag, struct bpf_prog *prog)
{
	struct bpf_prog_aux *aux = 0;

	READ(*tag, prog->tag);
	READ(aux, prog->aux);
	READ(*id, aux->id);
}

INLINE void identify_map(struct state *st, struct bpf_map *map)
{
	u32 *fact = (void *)st->fact, *known = (void *)st->known;
	u32 type, value;

	READ(fact[1], map->id);
	if (map == st->known_map && fact[1] == known[1]) { /* no other has had, or will have, the id */
		for (u32 at = 0; at < 5; at++)
			st->fact[at] = st->known[at];
	} else {
		READ(fact[0], map->map_type);
		READ(fact[2], map->key_size);
		READ(fact[3], map->value_size);
		READ(fact[4], map->max_entries);
		READ(fact[5], map->map_flags);
		READ(st->fact[3], map->map_extra);
		READ(fact[9], map->btf_vmlinux_value_type_id);
		for (u32 at = 0; at < 5; at++)
			st->known[at] = st->fact[at];
		st->known_map = map;
	}
	READ(*(u8 *)&st->fact[4], map->frozen);
	st->places.map_type = type = fact[0];
	st->places.key_size = fact[2];
	value = fact[3];
	/* bpf_map_value_size() in kernel/bpf/syscall.c */
	if (type == 5 || type == 6 || type == 10 || type == 21)
		value = ((value + 7) & ~7u) * cpus;
	st->places.value_size = value;
}

INLINE void identify_link(struct state *st, struct bpf_link *link)
{
	u32 *fact = (void *)st->fact;
	struct bpf_prog *prog = 0;

	READ(fact[0], link->type);
	READ(fact[1], link->id);
	st->places.link_type = fact[0];
	READ(prog, link->prog);
	if (prog)
		identify_prog(&fact[2], &st->fact[2], prog);
}

INLINE void identify_token(struct state *st, struct bpf_token *token)
{
	if (!field_exists(token->allowed_cmds)) /* before Linux 6.9 */
		return;
	READ(st->fact[0], token->allowed_cmds);
	READ(st->fact[1], token->allowed_maps);
	READ(st->fact[2], token->allowed_progs);
	READ(st->fact[3], token->allowed_attachs);
}

/* Whether an fd was identified at this stage of the call, and that it is now. */
INLINE u32 seen(struct state *st, u32 fd)
{
	u64 bit = 1ull << (fd & 63);
	u64 *word = &st->seen[fd / 64 & (FDS / 64 - 1)];
	u64 before = *word;

	if (fd >= FDS)
		return 0;
	*word = before | bit;
	return (before & bit) != 0;
}

/* Says what an fd is; nothing where it is none. For the rows that follow, it says so again. */
NOINLINE long identify(struct state *st, u32 fd)
{
	struct file *file = file_of(fd);
	u32 *fact = (void *)st->fact;
	void *object = 0;
	u32 kind, again;

	st->places.fd_kind = NO_FD;
	if (!file)
		return 0;
	again = seen(st, fd);
	st->places.fd_kind = kind = kind_of(file);
	if (kind == OTHER_FILE)
		return again ? 0 : other_file(st, fd, file);
	READ(object, file->private_data);
	st->fact[0] = st->fact[1] = st->fact[2] = st->fact[3] = st->fact[4] = 0;
	if (kind == MAP) {
		identify_map(st, object);
	} else if (kind == PROG) {
		READ(fact[0], ((struct bpf_prog *)object)->type);
		identify_prog(&fact[1], &st->fact[1], object);
		READ(object, ((struct bpf_prog *)object)->aux);
		READ(fact[4], ((struct bpf_prog_aux *)object)->attach_btf_id);
	} else if (kind == LINK) {
		identify_link(st, object);
	} else if (kind == BTF) {
		READ(fact[0], ((struct btf *)object)->id);
	} else if (kind == PERF_EVENT) {
		READ(st->fact[0], ((struct perf_event *)object)->id);
	} else if (kind == TOKEN) {
		identify_token(st, object);
	}
	return again ? 0 : tell(st, fd | (u64)kind << 32, st->fact, sizeof(st->fact), FD);
}
