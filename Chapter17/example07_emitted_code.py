# /// script
# requires-python = ">=3.11"
# dependencies = ["llvmlite>=0.45.0"]
# ///
"""What orderings are made of: atomic operations in the code of four processors.

An ordering says what must not change places. What that takes is up to the processor,
which may keep the order anyway. LLVM compiles each operation with each ordering for
x86-64, for ARMv8, for ARMv8.1 and for RISC-V. The first table shows the instructions
that touch memory or are fences.

* x86-64 lets a load go before an earlier store, and nothing else. So acquire and
  release are plain instructions. A store that is seq_cst becomes an exchange, which
  waits until all stores before are in memory. So do the read-modify-write instructions,
  whatever their ordering.
* ARMv8 has a load that acquires and a store that releases. It keeps such a load behind
  such a store, so they do for seq_cst as well. (ARMv8.3 adds `ldapr`, an acquire that
  need not wait.) A read-modify-write is a loop: its store fails if another core has
  stored since its load. ARMv8.1 has single instructions for it.
* RISC-V has fences. One names the reads and writes (r, w) before it that those behind
  it wait for. Its read-modify-write instructions have .aq and .rl for that.

(* A newer LLVM takes `lock or`, with 0, on the stack. For ordinary memory that is the
same.)

Before the processor comes the compiler, which reorders as well. One thread waits for a
flag; the other stores data, the flag, and other data. LLVM's optimiser (-O2) takes a
plain flag for a number that nobody else touches: it looks once, and then the loop is
endless. It drops the first data, which the second overwrite. A relaxed flag is looked
at again and again, but the first data are still dropped. With release they are not.

(In C and C++, such a loop must end: Clang leaves nothing at all of the plain one.)

Compiler Explorer (godbolt.org) shows such code for most compilers.

Output:
                x86-64        ARMv8         ARMv8.1       RISC-V
    load
      relaxed   mov           ldr           ldr           ld
      acquire   mov           ldar          ldar          ld; fence r,rw
      seq_cst   mov           ldar          ldar          fence rw,rw; ld; fence r,rw
    store
      relaxed   mov           str           str           sd
      release   mov           stlr          stlr          fence rw,w; sd
      seq_cst   xchg          stlr          stlr          fence rw,w; sd; fence rw,rw
    exchange
      relaxed   xchg          ldxr; stxr    swp           amoswap.d
      acquire   xchg          ldaxr; stxr   swpa          amoswap.d.aq
      release   xchg          ldxr; stlxr   swpl          amoswap.d.rl
      seq_cst   xchg          ldaxr; stlxr  swpal         amoswap.d.aqrl
    fetch_add
      relaxed   lock xadd     ldxr; stxr    ldadd         amoadd.d
      acquire   lock xadd     ldaxr; stxr   ldadda        amoadd.d.aq
      release   lock xadd     ldxr; stlxr   ldaddl        amoadd.d.rl
      seq_cst   lock xadd     ldaxr; stlxr  ldaddal       amoadd.d.aqrl
    compare_exchange
      relaxed   lock cmpxchg  ldxr; stxr    cas           lr.d; sc.d
      acquire   lock cmpxchg  ldaxr; stxr   casa          lr.d.aq; sc.d
      release   lock cmpxchg  ldxr; stlxr   casl          lr.d; sc.d.rl
      seq_cst   lock cmpxchg  ldaxr; stlxr  casal         lr.d.aqrl; sc.d.rl
    fence
      acquire   -             dmb ishld     dmb ishld     fence r,rw
      release   -             dmb ish       dmb ish       fence rw,w
      seq_cst   mfence*       dmb ish       dmb ish       fence rw,rw
    optimised          while (!flag) ;   data = 1; flag = 1; data = 2;
      plain            looks once        the first data are dropped
      relaxed          looks each time   the first data are dropped
      release/acquire  looks each time   the first data are stored
    an ordering binds the processor, and the optimiser before it
"""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

try:
    import llvmlite.binding as llvm  # type: ignore[import-untyped]
except ModuleNotFoundError:  # there are no wheels for free-threaded 3.13
    print("needs llvmlite")
    raise SystemExit(77) from None

# What older and newer versions of LLVM take for a fence of x86-64.
EMPTIES_BUFFER = r"mfence|lock\s+orl\s+\$0"


class Processor(NamedTuple):
    """A processor as LLVM names it."""

    triple: str
    features: str = ""


PROCESSORS = {
    "x86-64": Processor("x86_64-unknown-linux-gnu"),
    "ARMv8": Processor("aarch64-unknown-linux-gnu"),
    "ARMv8.1": Processor("aarch64-unknown-linux-gnu", "+lse"),
    "RISC-V": Processor("riscv64-unknown-linux-gnu", "+a"),
}

OF_LOADS = ("relaxed", "acquire", "seq_cst")
OF_STORES = ("relaxed", "release", "seq_cst")
OF_CHANGES = ("relaxed", "acquire", "release", "seq_cst")
OPERATIONS = {  # in LLVM's assembly language
    "load": ("%result = load atomic i64, ptr %cell {order}, align 8", OF_LOADS),
    "store": ("store atomic i64 %value, ptr %cell {order}, align 8", OF_STORES),
    "exchange": ("%result = atomicrmw xchg ptr %cell, i64 %value {order}", OF_CHANGES),
    "fetch_add": ("%result = atomicrmw add ptr %cell, i64 %value {order}", OF_CHANGES),
    "compare_exchange": (
        "%pair = cmpxchg ptr %cell, i64 %value, i64 %desired {order} {order_of_load}\n"
        "  %result = extractvalue {{ i64, i1 }} %pair, 0",
        OF_CHANGES,
    ),
    "fence": ("fence {order}", OF_CHANGES[1:]),
}
CHANGES = ("exchange", "fetch_add", "compare_exchange")
FUNCTION = """
define {kind} @{name}(ptr %cell, i64 %value, i64 %desired) {{
  {body}
  ret {result}
}}
"""

# Two threads and a box, which begins with data and has a flag 8 bytes behind.
WAIT_AND_PUBLISH = """
define void @wait(ptr %box) {{
entry:
  %flag = getelementptr i8, ptr %box, i64 8
  br label %look
look:
  %seen = load {atomic} i64, ptr %flag {acquire}, align 8
  %down = icmp eq i64 %seen, 0
  br i1 %down, label %look, label %end
end:
  ret void
}}
define void @publish(ptr %box) {{
  %flag = getelementptr i8, ptr %box, i64 8
  store i64 1, ptr %box, align 8
  store {atomic} i64 1, ptr %flag {release}, align 8
  store i64 2, ptr %box, align 8
  ret void
}}
"""
FLAGS = {  # what makes the flag atomic, and the orderings of its load and its store
    "plain": ("", "", ""),
    "relaxed": ("atomic", "monotonic", "monotonic"),
    "release/acquire": ("atomic", "acquire", "release"),
}

Table = Mapping[str, str]  # instructions, by operation and ordering: "load.acquire"


def emitted(text: str, processor: Processor, optimise: bool) -> dict[str, list[str]]:
    """Return what LLVM emits for each function: instructions and labels.

    Raises:
        RuntimeError: this LLVM does not know the processor, or `text` is not in order.
    """
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    target = llvm.Target.from_triple(processor.triple)
    machine = target.create_target_machine(opt=2, features=processor.features)
    module = llvm.parse_assembly(f'target triple = "{processor.triple}"\n{text}')
    module.verify()
    if optimise:
        options = llvm.create_pipeline_tuning_options(speed_level=2)
        builder = llvm.create_pass_builder(machine, options)
        builder.getModulePassManager().run(module, builder)
    functions: dict[str, list[str]] = {}
    for line in machine.emit_assembly(module).splitlines():
        if re.match(r"[\w.]+:", line) and not line.startswith(".L"):
            lines = functions[line.partition(":")[0]] = []
        elif re.match(r"\t\w|\.LBB", line):  # neither a directive nor a comment
            lines.append(line.strip())
    return functions


def name_of(instruction: str) -> str:
    """Return what an instruction is called, and what a fence is for."""
    if re.match(EMPTIES_BUFFER, instruction):
        return "mfence*"
    name, _, operands = re.sub(r"^lock\s+", "lock ", instruction).partition("\t")
    if is_fence(instruction):
        return f"{name} {operands.replace(' ', '')}"
    return re.sub(r"(mov|xchg|xadd)q$", r"\1", name)  # q: of 64 bits, as all of them


def is_fence(instruction: str) -> bool:
    return re.match(rf"dmb|fence|{EMPTIES_BUFFER}", instruction) is not None


def touches_memory(instruction: str) -> bool:
    return re.search(r"[(\[]", instruction) is not None


def matters(instruction: str) -> bool:
    return is_fence(instruction) or touches_memory(instruction)


def translations(processor: Processor) -> Table:
    """Return how each operation is done, without what stays within the core."""
    text = ""
    for operation, (template, orderings) in OPERATIONS.items():
        kind = "i64" if "%result" in template else "void"
        for ordering in orderings:
            order = ordering.replace("relaxed", "monotonic")  # LLVM's name of it
            body = template.format(
                order=order, order_of_load=order.replace("release", "monotonic")
            )
            text += FUNCTION.format(
                name=f"{operation}.{ordering}",
                body=body,
                kind=kind,
                result="void" if kind == "void" else "i64 %result",
            )
    return {
        name: "; ".join(name_of(one) for one in lines if matters(one))
        for name, lines in emitted(text, processor, optimise=False).items()
    }


def loop_of(lines: Sequence[str]) -> list[str]:
    """Return the instructions of the loop: from a label to the jump back to it."""
    for end, line in enumerate(lines):
        label = f"{line.split()[-1]}:"
        if label in lines[:end]:
            return list(lines[lines.index(label) + 1 : end + 1])
    return []


def optimised(processor: Processor, flag: str) -> tuple[bool, int]:
    """Tell whether the optimised loop looks at the flag, and how often is stored.

    Raises:
        ValueError: there is no loop.
    """
    atomic, acquire, release = FLAGS[flag]
    text = WAIT_AND_PUBLISH.format(atomic=atomic, acquire=acquire, release=release)
    functions = emitted(text, processor, optimise=True)
    loop = loop_of(functions["wait"])
    if not loop:
        raise ValueError("there is no loop")
    return any(map(touches_memory, loop)), sum(
        map(touches_memory, functions["publish"])
    )


def alike(table: Table, operation: str, *orderings: str) -> bool:
    """Tell whether an operation is done in the same way with all these orderings."""
    return len({table[f"{operation}.{ordering}"] for ordering in orderings}) == 1


def claims(tables: Mapping[str, Table]) -> dict[str, bool]:
    """Return what the docstring says of the processors, and whether it is so."""
    x86, arm, arm81, risc_v = tables.values()
    changes = [f"{one}.{ordering}" for one in CHANGES for ordering in OF_CHANGES]
    return {
        "x86-64: acquire and release are plain": alike(x86, "load", *OF_LOADS)
        and alike(x86, "store", "relaxed", "release")
        and all(alike(x86, one, *OF_CHANGES) for one in CHANGES),
        "x86-64: a seq_cst store is an exchange": x86["store.seq_cst"]
        == x86["exchange.seq_cst"]
        != x86["store.release"],
        "ARMv8: acquire and release do for seq_cst": alike(arm, "load", *OF_LOADS[1:])
        and alike(arm, "store", *OF_STORES[1:])
        and not alike(arm, "load", "relaxed", "acquire"),
        "ARMv8: a read-modify-write is two instructions, ARMv8.1: one": all(
            (arm[one].count(";"), arm81[one].count(";")) == (1, 0) for one in changes
        ),
        "RISC-V: fences are before and behind a load": risc_v["load.seq_cst"]
        == f"{risc_v['fence.seq_cst']}; {risc_v['load.acquire']}",
    }


def main() -> None:
    try:
        tables = {name: translations(one) for name, one in PROCESSORS.items()}
    except RuntimeError as error:
        print(f"needs an LLVM that knows these processors: {error}")
        raise SystemExit(77) from None
    print(f"{'':12}{''.join(f'{name:14}' for name in tables)}".rstrip())
    for operation, (_, orderings) in OPERATIONS.items():
        print(operation)
        for ordering in orderings:
            cells = [one[f"{operation}.{ordering}"] or "-" for one in tables.values()]
            print(f"  {ordering:10}{''.join(f'{cell:14}' for cell in cells)}".rstrip())
    for claim, holds in claims(tables).items():
        if not holds:
            raise SystemExit(f"this was to be so: {claim}")

    print("optimised          while (!flag) ;   data = 1; flag = 1; data = 2;")
    for flag in FLAGS:
        for name, processor in PROCESSORS.items():
            looks, stores = optimised(processor, flag)
            if looks != (flag != "plain"):
                raise SystemExit(f"{name}, {flag}: the loop was not to be like this")
            if (stores == 3) != (flag == "release/acquire"):
                raise SystemExit(f"{name}, {flag}: {stores} stores")
        what = "looks each time" if looks else "looks once"
        data = "stored" if stores == 3 else "dropped"
        print(f"  {flag:17}{what:18}the first data are {data}")
    print("an ordering binds the processor, and the optimiser before it")


if __name__ == "__main__":
    main()
