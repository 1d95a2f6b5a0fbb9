"""What all sessions keep together: never above the limit for longer than a call, the one cut longest first."""

from ukihashi.hub.memory import ResumeMemory


class Holder:
    """Holds some in a queue and some in records."""

    def __init__(self, queue: int, records: int) -> None:
        self.queue, self.records = queue, records
        self.sheds = 0

    @property
    def size(self) -> int:
        return self.queue + self.records

    def shed(self) -> int:
        self.sheds += 1
        if self.queue:
            self.queue = 0
        else:
            self.records = 0
        return self.size


def test_the_one_cut_longest_loses_its_queue_then_its_records() -> None:
    memory = ResumeMemory(100)
    old, new, linked = Holder(30, 20), Holder(30, 15), Holder(0, 5)
    for holder in (old, new, linked):
        memory.hold(holder, holder.size)
    memory.cut(old)
    memory.cut(new)
    memory.hold(linked, 5)
    assert (memory.used, memory.has_room) == (100, False)
    memory.hold(linked, 6)
    assert (old.queue, old.records, new.queue, memory.used) == (0, 20, 30, 71)
    memory.hold(linked, 60)
    assert (old.records, new.queue, new.records, memory.used) == (0, 0, 15, 75)
    memory.hold(linked, 300)  # nobody cut holds anything any more: a linked one is never robbed
    assert (new.size, memory.used) == (0, 300)
    assert (old.sheds, new.sheds) == (2, 2)


def test_one_that_is_back_or_gone_is_left_alone() -> None:
    memory = ResumeMemory(100)
    back, gone = Holder(40, 0), Holder(40, 0)
    for holder in (back, gone):
        memory.hold(holder, holder.size)
        memory.cut(holder)
    memory.linked(back)
    memory.forget(gone)
    memory.forget(gone)
    assert memory.used == 40
    memory.hold(back, 200)
    assert (back.sheds, gone.sheds, memory.used) == (0, 0, 200)
