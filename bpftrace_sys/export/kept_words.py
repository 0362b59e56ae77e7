"""Words that are nobody's secret, so that a trace without names can still be read: of C, of the
kernel's headers, of libbpf, and of the verifier's log."""

from __future__ import annotations

import re
from functools import cache
from typing import Final

C: Final = """
__ARRAY_SIZE_TYPE__ __be16 __be32 __be64 __int128 __le16 __le32 __le64 __s16 __s32 __s64 __s8 __u16
__u32 __u64 __u8 __wsum _Bool anon auto bool break case char const continue default do double else
enum extern false float for gid_t goto if inline int int16_t int32_t int64_t int8_t long NULL pid_t
register restrict return s16 s32 s64 s8 short signed size_t sizeof ssize_t static struct switch true
typedef u16 u32 u64 u8 uid_t uint16_t uint32_t uint64_t uint8_t umode_t union unsigned void volatile
while
"""
"""Keywords and the types that every program has."""
LOADERS: Final = """
__always_inline __array __hidden __kconfig __ksym __noinline __type __uint __weak addr_space_1 arena
BPF_CORE_READ bpf_core_read BPF_CORE_READ_INTO BPF_CORE_READ_STR_INTO BPF_KPROBE BPF_KRETPROBE
BPF_KSYSCALL bpf_printk BPF_PROBE_READ BPF_PROG BPF_PROG2 BPF_UPROBE BPF_URETPROBE bss ctx data GPL
inner_map_fd kconfig key key_size ksyms libbpf_nametest
license link map_extra map_flags maps max_entries numa_node pinning pt_regs rodata SEC struct_ops
task_struct text type value value_size values version vmlinux
"""
"""What libbpf calls sections, members of map definitions, and macros."""
VERIFIER: Final = """
__alloc __ign __iter __k __map __noreturn __nullable __opt __percpu __refcounted_kptr __safe_rcu
__safe_rcu_or_null __safe_trusted __safe_trusted_or_null __str __sz __szk __uninit _cmpxchg _fetch_
_rdwr _xchg ABS abusing access accessed acquire acquired active adding addr_space_cast address
aligned all alloc alloc_insn alloc_mem alloc_mem_or_null allocated allocated_stack allocation allow
allowed already alu ambiguous an ancestors_up and annotated another any are Arg arg_type argument
arguments arithmetic ARRAY Array array arraymap as assertion associated assumed async async_cb At at
atomic Attach attach attachable attached Attaching attempt aux back backtracing backtracking Bad bad
base been before between beyond bit bitfield_size bits_offset bitwise BOOL bound bounds BPF bpf BPF_
bpf_ BPF_ALU BPF_ATOMIC bpf_attach_type BPF_CALL bpf_cmd bpf_context BPF_DW bpf_dynptr_kern
bpf_dynptr_slice BPF_END BPF_EXIT bpf_iter BPF_JA BPF_JMP BPF_LD BPF_LD_ BPF_LD_ABS BPF_LD_IMM
BPF_LD_IMM64 bpf_ld_imm64 BPF_LDX bpf_lru_list bpf_lsm bpf_map bpf_map_elem bpf_map_type
BPF_MAP_TYPE_ BPF_MEM BPF_MOV bpf_mprog BPF_NEG bpf_obj_drop_impl bpf_obj_new
bpf_percpu_obj_drop_impl bpf_percpu_obj_new bpf_preempt_disable bpf_preempt_enable bpf_preload
bpf_prog_type BPF_PROG_TYPE_ BPF_PTR_POISON bpf_rcu_read_ bpf_rcu_read_lock bpf_rcu_read_unlock
bpf_rdonly_cast bpf_spin_locks BPF_ST bpf_struct_ops BPF_STX bpf_throw bpf_types bpf_user_pt_regs_t
BPF_XADD branches_to_explore bswap BTF btf_info btf_record btf_struct_walk btf_total_size
btf_vmlinux BTFs buffer BUG bug BUG_ BUG_ld_ BUG_ldx_ BUG_st_ Buggy buggy but by byte bytes call
callback callbacks callchain called callee Caller caller Calling calling calls calls_callback
callsite Can can candidate Cannot cannot CAP_BPF CAP_PERFMON CAP_SYS_ADMIN CAP_SYS_BOOT capabilities
capability cgroup_bpf_destroy cgroup_path chain change changes CHAR check check_kflag_member
check_member clone CO codes combination combined comparison compatible compiler complex
CONFIG_DEBUG_INFO_BTF CONST CONST_PTR_TO_DYNPTR constant contain contains context conversion convert
copy core_relo corrupt could Couldn cp_items cpumap CS css_task_iter cur cur_state current cycle
DATASEC debug DECL_TAG deep defined delegate_attachs delegate_cmds delegate_maps delegate_progs
depth dereference descendants_post descendants_pre descriptor destination destroy destructive
destructors detected determined device did didn different direct directly disallowed div does doesn
don drained dreg Driver dtor due dynamic Dynptr dynptr dynptr_ dynptr_id dynptr_local dynptr_ptr
dynptr_ringbuf dynptr_skb dynptr_xdp each eBPF edge either elem eliminated enable encoding end enter
entry ENUM ENUM64 env error Exceeded exceeded exceeds exception exception_callback execute execution
exist exit Expected expected expects extend extending Extension extension extra Failed failed
failure fall falling false_reg1 false_reg2 FD fd_idx FENTRY fentry fetching FEXIT fexit field fields
fill filter find first first_idx fix FLOAT flow fmod_ret forbidden force_precise forcing format
found fp_items Frame frames from frozen FUNC Func func func_id FUNC_PROTO func_proto funcs Function
function functions FWD get get_local_storage getsockopt gid Global global goes got gotol greater had
handling has have head held Helper helper helpers hidden history holding hooks host ID idx ignoring
In in include IND index index_type_id indirect indirectly infinite initialized input inside insn
insn_buf insn_idx instead instruction instructions INT int_data integer internal into inv inv0
Invalid invalid INVARIANTS is is_state_visited isn it ited iter_ iter_num iteration iterator its JIT
JITed jmp JMP32 jump jumps Kconfig kern Kernel kernel kfunc kfuncs kind_flag KIND_FUNC KIND_VAR
known kptr kptr_ref kptr_struct_meta kptr_untrusted ks large last last_idx layout LD_ABS ldimm64 ldx
lead leads leak leaking leaks leftover length limit Linkage linked_regs linux list_head live_done
liveness load loading loads local local_storage lock Locking log Loop loop loop_entry LSM lsm main
make makes malformed mangled many map_key map_of_maps map_ptr map_uid map_value map_value_or_null
mark_precise mark_read mark_reg_known_zero mark_reg_not_init mark_reg_unknown marked marks match
matches math Max max max_optlen max_states_per_insn may may_goto mem MEM_ALLOC mem_or_null mem_size
memalloc Member member memlock memory mend meta meta_left meta_needed middle might min misaligned
misconfigured mismatch missing misuse mixed modifiable modified modifiers modify module
module_cand_cache modules moff more multiple must mutates name_offset narrow need neg negative
neither nest nested nesting net_namespace never new next No no node non NON_OWN_REF non_own_ref
nonnull nonzero nospec nospec_result Not not Note nr_bits nr_copy_bits nr_elems null num number obj
object obtain of offload old on once one Only only opcode operand operation operator ops or original
other out output outside overflows overlap overwrite overwritten owning packet pair parameters
parent parents part partial pass passed passes patched paths pc pe_id peak_states per percpu percpu_
percpu_kptr percpu_ptr_ permitted pkt pkt_end pkt_meta Please point pointed pointer pointers
pointing points poke poke_mutex pop position Possibly potential precede precise preemptible
preemption prev_offset previous probe Processed processed prog prog_jited prog_tag Program program
programs progs prohibited propagate_live propagating properly prototype provide pseudo PTR ptr_
ptr_or_null_ PTR_TO_BTF_ID purge purpose pushed querying range rb rb_root rbtree rbtree_remove RCU
rcu rcu_ rcu_ptr_ rcu_read_lock rdonly rdonly_ rdonly_buf rdonly_buf_size rdonly_mem rdwr rdwr_buf
rdwr_buf_size RE reached read read_ok readonly reason rec record recursively ref ref_id ref_obj_id
ref_set_non_owning refcounted reference referenced references refs REG reg reg_mask region regs
rejected release released relo relocating repeating replace require required requires reserved
resolving RESTRICT restricted ret Return returning returns ringbuf ringbuf_ ringbuf_mem
ringbuf_mem_or_null root RTNL s32_max s32_min s32_range safe same scalar scalars search Section
section security_ self_only seq_file sequence set sets setsockopt shift should sign SIGNED single
sized skb skbuff Skipping sleep Sleepable sleepable slot slots small smaller smax smax32 smin smin32
sock_common sock_common_or_null sock_or_null socket sockhash some space special specified specifies
speculative spill spilled spin_ spin_lock_off sreg stack stack_mask stack_slots stacks starting
starts storage store stores storing str String string STRUCT struct_size stx sub Subprog subprog
subprog_info subprogram subprograms subprogs subreg subseq_idx subsystem subtract subtraction such
support supported supports sure symbol sync Syscall sysfs sz tags tail tail_call tail_calls tailing
tailroom taking Target target task_file task_type task_vma tcp_sock tcp_sock_or_null template
terminated th than that The the this those time timer tnum to token Too too Total total total_states
tp_buffer Tracing tracking tried true_reg1 true_reg2 trusted trusted_ptr_ Two two Type type_size
TYPE_TAG TYPEDEF types U32_MAX u32_max u32_min uid umax umax32 umin umin32 unable unacquired
Unaligned unavailable unbounded Unexpected unexpected unhandled unimplemented uninit uninitialized
UNION UNKN unknown unlock unmatched unnecessary unowned unpriv unreachable Unrecognized unrecognized
Unreleased Unsupported unsupported untrusted_ untrusted_ptr_ update update_branch_counts updated use
usec used user user_ user_ptr_ uses using valid validate Validating VAR var var_off vararg variable
verification Verifier verifier via VIOLATION violation visit_insn vlen vmlinux_cand_cache VOLATILE
vs waitq WARNING when will with within without workqueue would writes wrong xdp_buff xdp_sock xor
yet zero zext_dst
"""
"""Words that the verifier's and BTF's logs use (kernel/bpf/verifier.c, log.c, btf.c; those in the
strings of Linux 6.1 and 6.12); what is not here is taken for a name."""
IN_LOG: Final = re.compile(
    rb"[rRwW]\d{1,2}(?:_[a-z]{1,3})?|(?:fp|frame|arg|bpf_iter_)\d*|[0-9a-f]{2}|m+|le\d\d|be\d\d|bswap\d\d"
)
"""Registers, places of the stack, opcodes."""


@cache
def of_headers() -> frozenset[bytes]:
    """C's words, the loaders', and those of the kernel's headers: structs, members, constants."""
    from bpftrace_sys.story.probes import btf, maps, programs
    from decoders.uapi import const, helpers, names, perf
    from decoders.uapi.layouts import LAYOUTS

    found = set(f"{C} {LOADERS}".split())
    for struct, members in LAYOUTS.items():
        found.update(re.findall(r"\w+", struct))
        for member in members:
            found.update(re.findall(r"[A-Za-z_]\w*", f"{member.path} {member.ctype}"))
    for module in (names, perf, const):
        found.update(name for name in vars(module) if name.isupper())
        for table in vars(module).values():
            if isinstance(table, dict):
                found.update(name for name in table.values() if isinstance(name, str))
    # What loaders make to see whether they can; by its name it is known for a feature probe.
    probes = [*maps.LIBBPF_MAPS, *maps.CILIUM_MAPS]
    probes += [*programs.PROGRAM_NAMES, *programs.BPFTRACE_NAMES]
    probes += [text.decode() for _, strings in btf.BTF for text in strings]
    found.update(re.findall(r"\w+", " ".join(probes)))
    for name in helpers.bpf_func_id.values():
        found.add(f"bpf_{name}")
    return frozenset(name.encode() for name in found)


@cache
def of_logs() -> frozenset[bytes]:
    """Those, and the verifier's."""
    return of_headers() | frozenset(VERIFIER.encode().split())
