/* SPDX-License-Identifier: GPL-2.0-only
 *
 * What the programs need of the kernel: helpers by number, and of its structs the fields that are
 * read. Neither vmlinux.h nor libbpf's headers: the object depends on clang alone. The order and
 * the sizes here mean nothing; the kernel puts in its own offsets when a program is loaded
 * (bpf_core_apply() in kernel/bpf/btf.c, since Linux 5.17).
 */
#pragma once

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef int s32;
typedef unsigned long long u64;
typedef long long s64;

#define SEC(name) __attribute__((section(name), used))
#define NOINLINE static __attribute__((noinline))
#define INLINE static inline __attribute__((always_inline))
#define KERNEL __attribute__((preserve_access_index))
#define UINT(name, value) int(*name)[value]
#define TYPE(name, type) type *name

/* Numbers of enum bpf_core_relo_kind, include/uapi/linux/bpf.h */
#define field_offset(field) __builtin_preserve_field_info(field, 0)
#define field_exists(field) __builtin_preserve_field_info(field, 2)
#define enum_value(type, value) __builtin_preserve_enum_value(*(type *)value, 1)

/* Helpers by their numbers in include/uapi/linux/bpf.h */
static void *(*bpf_map_lookup_elem)(void *map, const void *key) = (void *)1;
static long (*bpf_map_update_elem)(void *map, const void *key, const void *value, u64 flags) = (void *)2;
static long (*bpf_map_delete_elem)(void *map, const void *key) = (void *)3;
static u64 (*bpf_ktime_get_ns)(void) = (void *)5;
static u64 (*bpf_get_current_pid_tgid)(void) = (void *)14;
static u64 (*bpf_get_current_uid_gid)(void) = (void *)15;
static long (*bpf_get_current_comm)(void *buf, u32 size) = (void *)16;
static u64 (*bpf_get_current_cgroup_id)(void) = (void *)80;
static long (*bpf_probe_read_user)(void *dst, u32 size, const void *from) = (void *)112;
static long (*bpf_probe_read_kernel)(void *dst, u32 size, const void *from) = (void *)113;
static long (*bpf_probe_read_user_str)(void *dst, u32 size, const void *from) = (void *)114;
static long (*bpf_probe_read_kernel_str)(void *dst, u32 size, const void *from) = (void *)115;
static u64 (*bpf_get_current_ancestor_cgroup_id)(int level) = (void *)123;
static long (*bpf_ringbuf_output)(void *ring, void *data, u64 size, u64 flags) = (void *)130;
static void *(*bpf_ringbuf_reserve)(void *ring, u64 size, u64 flags) = (void *)131;
static void (*bpf_ringbuf_submit)(void *data, u64 flags) = (void *)132;
static void (*bpf_ringbuf_discard)(void *data, u64 flags) = (void *)133;
static void *(*bpf_task_storage_get)(void *map, void *task, void *value, u64 flags) = (void *)156;
static void *(*bpf_get_current_task_btf)(void) = (void *)158;
static long (*bpf_btf_find_by_name_kind)(const char *name, int size, u32 kind, int flags) = (void *)167;
static void *(*bpf_task_pt_regs)(void *task) = (void *)175;
static long (*bpf_find_vma)(void *task, u64 addr, void *callback, void *ctx, u64 flags) = (void *)180;
static long (*bpf_loop)(u32 count, void *callback, void *ctx, u64 flags) = (void *)181;

/* READ(x, p->a->b): one pointer at a time is followed by the caller. */
#define READ(dst, field) bpf_probe_read_kernel(&(dst), sizeof(dst), &(field))

/* A size as verifiers of all kernels see it: clang would leave out a comparison that it knows to
 * change nothing, and older verifiers do not know. */
INLINE u64 bounded(u64 size, u64 most)
{
	__asm__ volatile("" : "+r"(size));
	return size > most ? most : size;
}

struct qstr {
	u32 len;
	const u8 *name;
} KERNEL;
struct dentry;
struct super_block {
	unsigned long s_magic;
	struct dentry *s_root;
} KERNEL;
struct inode {
	unsigned long i_ino;
	struct super_block *i_sb;
} KERNEL;
struct hlist_bl_node {
	struct hlist_bl_node **pprev;
} KERNEL;
struct dentry {
	struct hlist_bl_node d_hash;
	struct dentry *d_parent;
	struct qstr d_name;
} KERNEL;
struct vfsmount {
	struct dentry *mnt_root;
} KERNEL;
struct mount {
	struct mount *mnt_parent;
	struct dentry *mnt_mountpoint;
	struct vfsmount mnt;
} KERNEL;
struct path {
	struct vfsmount *mnt;
	struct dentry *dentry;
} KERNEL;
struct file {
	const void *f_op;
	void *private_data;
	struct inode *f_inode;
	struct path f_path;
} KERNEL;
struct fs_struct {
	struct path root;
} KERNEL;
struct fdtable {
	u32 max_fds;
	struct file **fd;
} KERNEL;
struct files_struct {
	struct fdtable *fdt;
} KERNEL;
struct kernel_cap {
	u64 val;
} KERNEL;
struct ns_common {
	u32 inum;
} KERNEL;
struct user_namespace {
	struct ns_common ns;
} KERNEL;
struct cred {
	struct kernel_cap cap_effective;
	struct user_namespace *user_ns;
} KERNEL;
struct file;
struct mm_struct {
	struct file *exe_file;
	unsigned long task_size;
	unsigned long arg_start;
	unsigned long arg_end;
} KERNEL;
struct thread_info {
	unsigned long flags;
	u32 status; /* x86 only */
} KERNEL;
struct hlist_node {
	struct hlist_node *next;
} KERNEL;
struct hlist_head {
	struct hlist_node *first;
};
struct bpf_prog;
struct bpf_xdp_link;
struct bpf_xdp_entity {
	struct bpf_prog *prog;
	struct bpf_xdp_link *link;
} KERNEL;
struct net_device {
	char name[16];
	s32 ifindex;
	struct hlist_node index_hlist;
	struct bpf_xdp_entity xdp_state[3];
} KERNEL;
struct net {
	struct ns_common ns;
	struct hlist_head *dev_index_head;
} KERNEL;
struct nsproxy {
	struct net *net_ns;
} KERNEL;
struct task_struct {
	struct nsproxy *nsproxy;
	struct thread_info thread_info;
	s32 pid;
	s32 tgid;
	s32 exit_code;
	s32 exit_signal;
	struct task_struct *real_parent;
	struct fs_struct *fs;
	struct files_struct *files;
	const struct cred *cred;
	struct mm_struct *mm;
} KERNEL;

enum bpf_map_type { BPF_MAP_TYPE_RINGBUF = 99 }; /* wrong on purpose: 27 */
enum bpf_prog_type { BPF_PROG_TYPE_UNSPEC };
enum bpf_link_type { BPF_LINK_TYPE_UNSPEC };
struct bpf_map {
	u32 id;
	u32 max_entries; /* wrong on purpose, all of them */
	u32 map_flags;
	u32 value_size;
	u32 key_size;
	enum bpf_map_type map_type;
	u64 map_extra;
	_Bool frozen;
	u32 btf_vmlinux_value_type_id;
} KERNEL;
struct bpf_prog_aux {
	struct {
		s64 counter;
	} refcnt;
	u32 id;
	u32 attach_btf_id;
} KERNEL;
struct bpf_prog {
	u8 tag[8];
	enum bpf_prog_type type;
	struct bpf_prog_aux *aux;
} KERNEL;
struct bpf_link {
	u32 id;
	enum bpf_link_type type;
	struct bpf_prog *prog;
} KERNEL;
struct bpf_xdp_link {
	struct bpf_link link;
} KERNEL;
struct btf {
	u32 id;
} KERNEL;
struct perf_event {
	u64 id;
} KERNEL;
struct bpf_token {
	u64 allowed_cmds;
	u64 allowed_maps;
	u64 allowed_progs;
	u64 allowed_attachs;
} KERNEL;

/* What is after the last three underscores of a name is ours (bpf_core_essential_name_len()). */
struct pt_regs___x86 {
	unsigned long bx, cx, dx, si, di, bp, r8, r9, r10, orig_ax;
} KERNEL;
struct pt_regs___arm64 {
	u64 regs[31];
	u64 orig_x0;
	s32 syscallno;
} KERNEL;
