"""An EXT program in the place of another program's function; run before and after."""

from _common import Btf, Kit, asm, result_of, returning, run, u32s

XDP_DROP, XDP_PASS = 1, 2


def work(kit: Kit) -> None:
    types = Btf()
    main = types.func("xdp_main", ctx=types.ptr(types.struct("xdp_md", 24)))
    verdict = types.func("verdict", exported=True, number=types.int)
    btf = kit.btf(types.blob())
    # xdp_main: return verdict(1);  verdict: return XDP_PASS;
    insns = asm.mov(asm.R1, 1) + asm.call(1, asm.CALL_SUBPROG) + asm.exit_() + returning(XDP_PASS)
    target = kit.prog(
        "XDP", insns, "xdp_main", prog_btf_fd=btf,
        func_info=u32s(0, main, 3, verdict), func_info_cnt=2, func_info_rec_size=8,
    )  # fmt: skip
    kit.say(target="xdp_main", function="verdict", function_btf_id=verdict)
    kit.say(before=result_of(target))

    new_types = Btf()
    function = new_types.func("new_verdict", exported=True, number=new_types.int)
    replacement = kit.prog(
        "EXT", returning(XDP_DROP), "new_verdict", prog_btf_fd=kit.btf(new_types.blob()),
        attach_prog_fd=target, attach_btf_id=verdict,
        func_info=u32s(0, function), func_info_cnt=1, func_info_rec_size=8,
    )  # fmt: skip
    kit.link("CGROUP_INET_INGRESS", replacement, target, "target_btf_id", target_btf_id=verdict)
    kit.say(after=result_of(target))


run(work)
