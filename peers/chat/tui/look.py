"""Where things stand and which colours they have: the theme's, never our own, so that a terminal's theme fits too."""

from typing import Final

CSS: Final = """
Screen { layers: base; }
#main { height: 1fr; }
#side { width: 30; border-right: solid $panel; }
#owner { height: 1; padding: 0 1; text-style: bold; color: $text-muted; text-wrap: nowrap; text-overflow: ellipsis; }
#people {
    height: 1fr; border: none; padding: 0; background: transparent; scrollbar-size-vertical: 1;
    & > .option-list--option { padding: 0 1; }
    &:focus { border: none; }
}
#right { width: 1fr; }
#heading {
    height: 1; padding: 0 1; background: $panel; text-wrap: nowrap; text-overflow: ellipsis;
}
#conversation { height: 1fr; padding: 0 1; align-vertical: bottom; scrollbar-size-vertical: 1; overflow-x: hidden; }
#empty { height: 1fr; padding: 1 2; color: $text-muted; display: none; }
#right.-empty { #heading, #conversation, #editing, #composer { display: none; } #empty { display: block; } }
#editing { height: 1; padding: 0 1; background: $warning-muted; color: $text-warning; display: none; }
#editing.-on { display: block; }
#composer {
    height: auto; max-height: 8; padding: 0 1; border: none; border-top: solid $panel; background: $surface;
    &:focus { border-top: solid $primary; }
}
#foot { height: auto; max-height: 3; padding: 0 1; background: $panel; }
#status { width: 1fr; height: auto; }
#keys { width: auto; padding-left: 2; color: $text-muted; }

.line { width: 1fr; height: 1; color: $text-muted; margin: 1 0 0 0; }
.line.-unread { color: $text-warning; text-style: bold; margin: 0; }
.bubble { width: auto; max-width: 90%; height: auto; padding: 0 1; }
.bubble.-turn { margin-top: 1; }
.-tall .bubble { margin-top: 1; }
.bubble.-theirs { background: $surface; border-left: outer $primary; }
.bubble.-ours { background: $primary-muted; border-right: outer $accent; }
.bubble.-selected { text-style: bold; }
.bubble.-theirs.-selected { border-left: thick $warning; }
.bubble.-ours.-selected { border-right: thick $warning; }

.dialog { align: center middle; background: $background 60%; }
.box {
    width: 64; max-width: 100%; height: auto; max-height: 100%; padding: 0 1; background: $surface;
    border: round $primary;
    & .title { text-style: bold; margin-bottom: 1; }
    & .body { height: auto; max-height: 70vh; margin-bottom: 1; }
    & .error { color: $text-error; height: auto; }
    & .keys { color: $text-muted; }
    & OptionList { height: auto; max-height: 12; border: none; background: transparent; padding: 0; }
    & Input { border: tall $primary; }
    & .reader { height: 1fr; border: none; }
}
.box.wide { width: 78; }
.box.card {
    width: 80; padding: 0;
    & .body { layout: horizontal; max-height: 96vh; margin: 0; }
    & .code { width: auto; padding-right: 1; }
    & .words { width: 1fr; }
}
.box.full { width: 96%; height: 96%; & OptionList { height: 1fr; max-height: 100%; } }

.-narrow {
    #side { width: 1fr; border-right: none; display: none; }
    .box { padding: 0; }
    .box.card .body { layout: vertical; }
    .box.card .words { width: 100%; }
    #keys { display: none; }
}
.-narrow.-listing { #side { display: block; } #right { display: none; } }
"""
