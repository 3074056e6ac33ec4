"""The prompts view: prompts that wait, the shown one in full, and its answer.

The view decides nothing. Keys become events, the state that comes back is shown, and once a page is really on
the terminal the view says so (``Painted``), since only from then on may keys answer it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.css.query import NoMatches

from remit_tui import words
from remit_tui.events import ONCE, TERMS, Action, Event, Filtered, Key, Painted, Paste
from remit_tui.screens.view import Desk, View
from remit_tui.state import State
from remit_tui.text import fold
from remit_tui.widgets.lines import Lines, Page, Queue

_TERM_KEYS: list[BindingType] = [
    Binding(
        str(i + 1),
        f"term({i})",
        "For" if i == 0 else f"For {name}",
        show=i == 0,
        key_display="1-5" if i == 0 else None,
        tooltip=f"the answer lasts: {name}",
        id=f"prompts.for_{name.replace(' ', '_')}",
    )
    for i, (name, _) in enumerate(TERMS)
]


class Prompts(View):
    """Lists open prompts and answers them."""

    NAME = "prompts"

    DEFAULT_CSS = """
    #terms, #verdicts { height: auto; }
    Prompts #page { border-top: solid $foreground 40%; border-bottom: solid $foreground 40%; }
    Prompts #page { padding: 0 1; }
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("d", "act('deny')", "Deny", tooltip="deny what is shown, for as long as is set", id="prompts.deny"),
        Binding("a", "act('allow')", "Allow", tooltip="allow what is shown, for as long as is set", id="prompts.allow"),
        *_TERM_KEYS,
        Binding("s", "act('broader')", "Scope", tooltip="a broader scope", id="prompts.broader"),
        Binding("S", "act('narrower')", "Narrower", show=False, tooltip="a narrower scope", id="prompts.narrower"),
        Binding("e", "act('edit')", "Edit scope", show=False, tooltip="write the scope yourself", id="prompts.edit"),
        Binding("m", "act('tell')", "Message", show=False, tooltip="write what a denial tells the agent", id="prompts.message"),
        Binding("tab", "act('turn')", "Deny/allow", show=False, tooltip="set deny or allow without answering", id="prompts.turn"),
        Binding("enter", "act('enter')", "Open", show=False, tooltip="open the prompt, or deny; never allows"),
        Binding("x", "act('mark')", "Mark", show=False, tooltip="mark the prompt, to answer several at once", id="prompts.mark"),
        Binding("X", "act('mark_agent')", "Mark agent", show=False, tooltip="mark all prompts of its agent", id="prompts.mark_agent"),
        Binding("v", "act('bulk')", "Answer marked", tooltip="read all marked prompts on one page, and answer them once", id="prompts.marked"),
        Binding("M", "act('past')", "Missed", tooltip="what nobody answered in time, to make a rule of it; again goes back", id="prompts.missed"),
        Binding("p", "act('pause')", "Pause", show=False, tooltip="pause the agent that asks, or let it go on", id="prompts.pause"),
        Binding("exclamation_mark", "act('stop')", "Stop", show=False, tooltip="end the agent that asks; asks once more", id="prompts.stop"),
        Binding("j,down", "act('down')", "Move", key_display="j/k", tooltip="the next prompt", id="any.down"),
        Binding("k,up", "act('up')", "Up", show=False, tooltip="the prompt before", id="any.up"),
        Binding("g,home", "act('top')", "First", show=False, tooltip="the first prompt", id="any.first"),
        Binding("G,end", "act('bottom')", "Last", show=False, tooltip="the last prompt", id="any.last"),
        Binding("space,pagedown", "scroll(1)", "Read on", show=False, tooltip="scroll the prompt down", id="any.read_on"),
        Binding("b,pageup", "scroll(-1)", "Read back", show=False, tooltip="scroll the prompt up", id="any.read_back"),
        Binding("escape", "act('leave')", "Leave", key_display="esc", tooltip="leave the prompt in the queue", id="any.back"),
    ]  # fmt: skip

    def __init__(self, desk: Desk, dispatch: Callable[[Event], None]) -> None:
        super().__init__(desk)
        self._dispatch = dispatch
        self._state = State()
        self._page = -1
        self._reporting = False
        self._open = (False, False)

    def idle(self) -> frozenset[str]:
        """Return what does nothing now."""
        state = self._state
        out = {"any.down"} if len(state.queue) < 2 else set()
        if not state.shown:
            out |= {
                "prompts.broader",
                "prompts.for_once",
                *([] if state.bulk else ["prompts.deny", "prompts.allow", "any.back"]),
            }
        prompt = state.prompt
        if prompt is not None and len(state.offered) < 2:
            out.add("prompts.for_once")
        if prompt is not None and (
            len(prompt.scopes) < 2 or (state.term == ONCE and not prompt.limit) or not state.offered
        ):
            out.add("prompts.broader")
        if prompt is not None and not state.offered:
            out |= {"prompts.deny", "prompts.allow"}
        if state.past:
            out.discard("any.back")
        if state.bulk or not state.marked:
            out.add("prompts.marked")
        return frozenset(out)

    def body(self) -> ComposeResult:
        """Lay out list, question and answer."""
        yield Queue(id="queue")
        with Page(id="page", can_focus=False):
            yield Lines(id="detail")
            yield Lines(id="rule")
        yield Lines(id="terms")
        yield Lines(id="verdicts")

    def show(self, state: State) -> None:
        """Show ``state``; report it painted when it is on the terminal."""
        self._state = state
        try:
            self._fill(state)
        except NoMatches:
            pass  # not laid out yet, or being taken down

    def _fill(self, state: State) -> None:
        width = self.size.width
        self.frame()
        self.query_one(Queue).show(state)
        prompt, inner = state.prompt, width - 3  # padding, and the scroll bar
        detail, rule = self.query_one("#detail", Lines), self.query_one("#rule", Lines)
        if state.bulk:
            detail.show(words.together(state, inner, self.desk.wall()))
        else:
            detail.show(words.detail(prompt, inner, self.desk.wall()) if prompt else [])
        rule.show(words.rule(state, inner))
        open_ = prompt is not None or state.bulk
        self.query_one("#terms", Lines).show([words.terms(state)] if prompt else [])
        self.query_one("#verdicts", Lines).show([words.verdicts(state)] if open_ else [])
        self.query_one("#notice", Lines).show(
            [[("", part)] for part in fold(state.notice, width - 2)] if state.notice else [[("", "")]]
        )
        if state.page != self._page:
            self._page = state.page
            page = self.query_one(Page)
            if state.anchor == "top":
                page.scroll_home(animate=False)
            else:
                page.scroll_end(animate=False)
        # Every tick comes by here, so a report that found the page not laid out yet is made again.
        if open_ and not self._reporting and (state.painted is None or not state.read):
            self.call_after_refresh(self._report, state.page)

    def _report(self, number: int) -> None:
        if number != self._state.page or not self.is_current or not self.query(Page):
            return
        page = self.query_one(Page)
        if page.virtual_size.height < sum(lines.height for lines in page.query(Lines)):
            return
        self._reporting = True
        try:
            self._dispatch(Painted(number, page.at_end))
        finally:
            self._reporting = False

    def on_page_moved(self) -> None:
        """Report that the person has scrolled."""
        self.call_after_refresh(self._report, self._state.page)

    def on_queue_picked(self, message: Queue.Picked) -> None:
        """Move to the clicked row."""
        action = Action.DOWN if message.steps > 0 else Action.UP
        for _ in range(abs(message.steps)):
            self._dispatch(Key(action))

    def on_resize(self) -> None:
        """Fold everything anew."""
        self.call_after_refresh(lambda: self.show(self._state))

    def on_paste(self, event: events.Paste) -> None:
        """Throw pasted text away, and say so."""
        event.stop()
        self._dispatch(Paste())

    def action_act(self, name: str) -> None:
        """Report a key by its meaning."""
        self._dispatch(Key(Action(name)))

    def action_term(self, term: int) -> None:
        """Report the choice of a term."""
        self._dispatch(Key(Action.TERM, term))

    def action_scroll(self, direction: int) -> None:
        """Scroll the question by a page."""
        self._dispatch(Key(Action.SCROLL))
        page = self.query_one(Page)
        if direction > 0:
            page.scroll_page_down(animate=False)
        else:
            page.scroll_page_up(animate=False)

    def action_filter(self) -> None:
        """Let the person write words that must be in a prompt."""

        async def check(_text: str) -> tuple[bool, str]:
            return True, "each word must be somewhere in it; none lists all. What is not listed waits on"

        self.desk.ask("list only", self._state.filter, check, lambda text: self._dispatch(Filtered(text)))
