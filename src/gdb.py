"""Coroutines in gdb: `info coroutines`, `coroutine N bt`, `coroutine apply all bt`.

The library embeds this script in every program that uses it. It reads memory and calls nothing, so
that it works on core files, and needs no information about types for the commands: the table in
`src/engine/debugger.rs` says where things are. The printers do need it.
"""

import re

import gdb
import gdb.printing
import gdb.unwinder

ROOT = "PLAINSONG_COROUTINES"
# The registers that a switch saves, lowest address first, and the size of all that it pushes.
SAVED = {
    "i386:x86-64": (["rip", "rbx", "rbp"], 24, "rsp", "rbp"),
    "aarch64": (["x19", "x29", "pc"], 32, "sp", "x29"),
}
LIBRARIES = {"plainsong", "corosensei", "core", "std", "alloc", "__rust_try"}


def read(address, size):
    return bytes(gdb.selected_inferior().read_memory(address, size))


def number(address, size=8):
    return int.from_bytes(read(address, size), "little")


def words(address, size):
    data = read(address, size)
    return [int.from_bytes(data[at : at + 8], "little") for at in range(0, size - 7, 8)]


def text(address):
    """The `str` whose pointer and length are at an address."""
    start, size = words(address, 16)
    return read(start, size).rstrip(b"\0").decode(errors="replace")


def is_code(address):
    symbol = gdb.execute(f"info symbol {address:#x}", to_string=True)
    return not symbol.startswith("No symbol matches")


class Process:
    """The root of all coroutines, and the table of where things are."""

    def __init__(self):
        listed = gdb.execute(f"info variables -q {ROOT}", to_string=True)
        found = re.search(rf"(0x[0-9a-f]+) +\S*{ROOT}", listed)
        if found:
            root = int(found.group(1), 16)
        else:
            symbol = gdb.lookup_static_symbol(f"plainsong::engine::debugger::{ROOT}")
            if symbol is None:
                raise gdb.GdbError(
                    "No coroutines: the program does not use plainsong, or was stripped of its symbols."
                )
            root = int(symbol.value().address)
        version, self.threads, sample, line = words(root, 32)
        if version != 1:
            raise gdb.GdbError(f"This script does not know version {version} of plainsong's table.")
        names = "inner inner_size yielder slot parked id spawned extras reason detail name text"
        self.at = dict(zip(names.split(), words(root + 32, 8 * len(names.split()))))
        # A place in the source has a file, a line and a column, in an order that the compiler chooses.
        for at in (0, 8):
            if 0 < number(sample + at + 8) < 4096:
                self.file = at
                break
        rest = 16 if self.file == 0 else 0
        self.line, self.column = (rest, rest + 4) if number(sample + rest, 4) == line else (rest + 4, rest)

        # The folder of the library's source.
        self.source = text(sample + self.file)[: -len("engine/debugger.rs")]

    def is_library(self, name, file):
        """Whether a frame is of this library, of corosensei, or of Rust's own libraries."""
        others = ("/rustlib/src/rust/library/", "/rustc/", "/corosensei-")
        if file.startswith(self.source) or any(part in file for part in others):
            return True
        # A name has a path if the program has full debug information, or if it comes from a symbol.
        first = re.match(r"[<&*(]*(\w+)", name)
        return bool(first) and first.group(1) in LIBRARIES

    def place(self, address):
        line, column = number(address + self.line, 4), number(address + self.column, 4)
        return f"{text(address + self.file)}:{line}:{column}"

    def coroutines(self):
        thread = self.threads
        while thread:
            thread, table, system = words(thread, 24)
            if table:
                yield from self.of_table(table, system & 0xFFFFFFFF)

    def of_table(self, table, system):
        """A slab: the address of its entries, their number and room for them, in some order."""
        sizes = sorted(words(table, 40))
        entries, count = sizes.pop(), 0 if sizes[-1] == 0 else sizes[-2]
        data = words(entries, 16 * count) if count else []
        for slot in range(count):
            for address in data[2 * slot : 2 * slot + 2]:
                try:
                    if address > 4096 and number(address + self.at["slot"], 4) == slot:
                        yield Coroutine(self, address, system)
                        break
                except gdb.MemoryError:
                    pass


class Coroutine:
    def __init__(self, process, address, system):
        self.process, self.address, self.system = process, address, system
        self.id = self.word("id")
        self.yielder = self.word("yielder")
        self.saved = self.find_saved()

    def word(self, name):
        return number(self.address + self.process.at[name])

    def name(self):
        extras = self.word("extras")
        if not extras or not number(extras + self.process.at["name"]):
            return None
        start, size = words(extras + self.process.at["name"], 16)
        # Behind the two counts of an `Arc`.
        return read(start + 16, size).decode(errors="replace")

    def find_saved(self):
        """The address of the saved registers, if it is suspended."""
        if not self.yielder:
            return None
        names, size, _, _ = registers()
        pc = names.index("rip" if "rip" in names else "pc") * 8
        inner = words(self.address + self.process.at["inner"], self.process.at["inner_size"])
        # The stack pointer with which it began is the highest below the yielder, and remains.
        below = [word for word in inner if word < self.yielder]
        for word in inner:
            try:
                if word not in (max(below, default=0), 0) and is_code(number(word + pc)) and not is_code(word):
                    return word
            except gdb.MemoryError:
                pass
        return None

    def state(self):
        if not self.yielder:
            return "has not begun"
        if not self.saved:
            return "runs"
        if not number(self.address + self.process.at["parked"], 1):
            return "is ready"
        reason = text(self.word("reason") + self.process.at["text"])
        return "waits for " + reason.replace("{}", str(number(self.address + self.process.at["detail"], 4)))

    def __str__(self):
        name = self.name()
        name = f" '{name}'" if name else ""
        place = self.process.place(self.word("spawned"))
        return f"#{self.id}{name} {self.state()}, spawned at {place}"

    def backtrace(self, full):
        if not self.yielder:
            return
        selected = gdb.selected_thread()
        try:
            if self.saved:
                UNWINDER.show(self.saved)
                _, size, sp, _ = registers()
                frame = gdb.newest_frame()
                # Functions that were inlined there have frames, too.
                while frame is not None and int(frame.read_register(sp)) != self.saved + size:
                    frame = frame.older()
            else:
                for thread in gdb.selected_inferior().threads():
                    if thread.ptid[1] == self.system:
                        thread.switch()
                frame = gdb.newest_frame()
            self.print_frames(frame, full)
        finally:
            UNWINDER.show(None)
            if selected:
                selected.switch()

    def print_frames(self, frame, full):
        _, _, _, base = registers()
        level, folded = 0, 0
        while frame is not None and frame.is_valid():
            if int(frame.read_register(base)) == self.yielder and frame.type() == gdb.SIGTRAMP_FRAME:
                # The first frame of the stack. The loop's follow, or what was there long ago.
                break
            where = frame.find_sal()
            # A hash is part of a name that comes from a symbol.
            name = re.sub(r"::h[0-9a-f]{16}$", "", frame.name() or "??")
            file = where.symtab.filename if where.symtab else ""
            if full or not self.process.is_library(name, file):
                at = f" at {file}:{where.line}" if file else ""
                print(f"#{level:<3} {frame.pc():#018x} in {name} (){at}")
            else:
                folded += 1
            level += 1
            try:
                frame = frame.older()
            except gdb.error as error:
                print(f"     {error}")
                break
        if folded:
            print(f"     and {folded} frames of the library")


def registers():
    name = gdb.selected_inferior().architecture().name()
    if name not in SAVED:
        raise gdb.GdbError(f"The registers of a suspended coroutine are not known on {name}.")
    return SAVED[name]


class FrameId:
    def __init__(self, sp, pc):
        self.sp, self.pc = sp, pc


class SuspendedUnwinder(gdb.unwinder.Unwinder):
    """Puts the frames of a suspended coroutine behind the newest frame of the thread."""

    def __init__(self):
        super().__init__("plainsong")
        self.saved = None
        self.enabled = False

    def show(self, saved):
        self.saved, self.enabled, self.used = saved, saved is not None, False
        gdb.invalidate_cached_frames()

    def __call__(self, frame):
        if self.saved is None or self.used:
            return None
        self.used = True
        names, size, sp, _ = registers()
        value = lambda name, it: gdb.Value(it).cast(frame.read_register(name).type)
        pc = "rip" if "rip" in names else "pc"
        # Below the frames that follow: gdb takes stacks that jump down for broken.
        ident = FrameId(value(sp, self.saved - 64), frame.read_register(pc))
        unwound = frame.create_unwind_info(ident)
        for name, word in zip(names, words(self.saved, size)):
            unwound.add_saved_register(name, value(name, word))
        unwound.add_saved_register(sp, value(sp, self.saved + size))
        return unwound


class InfoCoroutines(gdb.Command):
    """List all coroutines: id, name, wait, and the place of the spawn.
Usage: info coroutines [TEXT]
With a text, only those whose line contains it."""

    def __init__(self):
        super().__init__("info coroutines", gdb.COMMAND_STATUS)

    def invoke(self, argument, from_tty):
        count = 0
        for coroutine in Process().coroutines():
            line = str(coroutine)
            if argument in line:
                count += 1
                print(line)
        print(f"{count} coroutine{'' if count == 1 else 's'}")


class CoroutineCommand(gdb.Command):
    """Show the backtrace of a coroutine, or of all.
Usage: coroutine N bt [full]
       coroutine apply all bt [full]
N is an id that `info coroutines' shows. Frames of the library are only counted, unless `full' is
given."""

    def __init__(self):
        super().__init__("coroutine", gdb.COMMAND_STACK)

    def invoke(self, argument, from_tty):
        match = re.fullmatch(r"(apply\s+all|#?(\d+))\s+(?:bt|backtrace)(\s+full)?", argument.strip())
        if not match:
            raise gdb.GdbError("Usage: coroutine N bt, or: coroutine apply all bt")
        wanted = match.group(2)
        all = [it for it in Process().coroutines() if wanted is None or it.id == int(wanted)]
        if not all:
            raise gdb.GdbError(f"There is no coroutine {wanted}." if wanted else "There is no coroutine.")
        for coroutine in all:
            print(f"Coroutine {coroutine}")
            coroutine.backtrace(full=match.group(3) is not None)


def scalar(value):
    """The number in a value that is wrapped in structures of one field."""
    while value.type.strip_typedefs().code == gdb.TYPE_CODE_STRUCT:
        value = value[value.type.fields()[0]]
    return int(value)


class JoinHandlePrinter:
    def __init__(self, value):
        self.id = scalar(value["id"])

    def to_string(self):
        for coroutine in Process().coroutines():
            if coroutine.id == self.id:
                return f"JoinHandle of coroutine {coroutine}"
        return f"JoinHandle of coroutine #{self.id}, which has ended or not begun"


class ChannelPrinter:
    def __init__(self, value):
        self.end = value.type.name.split("::")[-1].split("<")[0]
        self.core = None
        if self.end == "Sender":
            self.core = value["core"]
        else:
            # An enum: its last field is the variant that it is. Timers are receivers, too.
            variant = value["flavor"].type.fields()[-1]
            if variant.name == "Items":
                items = value["flavor"][variant]
                self.core = items[items.type.fields()[-1]]

    def to_string(self):
        if self.core is None:
            return f"{self.end} of a timer"
        core = self.core["ptr"]["pointer"].dereference()["data"]
        state = core["state"]["state"]["__0"]["value"]
        place = Process().place(int(core["state"]["created"]))
        items, capacity = scalar(state["items"]["len"]), scalar(state["capacity"])
        room = f"{items} of {capacity}" if capacity < 1 << 62 else f"{items} in it"
        ends = [(scalar(core[name]), name[:-1]) for name in ("senders", "receivers")]
        ends = ", ".join(f"{count} {name}{'' if count == 1 else 's'}" for count, name in ends)
        return f"{self.end} of the channel created at {place}, {room}, {ends}"


def printers():
    all = gdb.printing.RegexpCollectionPrettyPrinter("plainsong")
    all.add_printer("JoinHandle", r"^plainsong::task::join::JoinHandle<.*>$", JoinHandlePrinter)
    all.add_printer("channel", r"^plainsong::sync::channel::ends::(Sender|Receiver)<.*>$", ChannelPrinter)
    return all


UNWINDER = SuspendedUnwinder()
gdb.unwinder.register_unwinder(None, UNWINDER, replace=True)
gdb.printing.register_pretty_printer(None, printers(), replace=True)
InfoCoroutines()
CoroutineCommand()
