"""Draws a transcript of session-record.py as an animated SVG, for scripts/record.

session-render.py TRANSCRIPT: reads it into a terminal that knows what our output uses and refuses all else, notes from
when to when each line looked how, and prints a picture with one group of lines for each such span. All rows that there
ever were stand below each other, and the window moves over them. The cursor has a cover to its right, so a command is
there from its prompt on, and typing is the cursor's way over it. Without animations it is the last frame.

The same transcript gives the same bytes. Python's smallest standard library is enough. What is not here: several
windows, cursors within a line, characters of two columns.
"""

import re
import sys

# Seconds: no pause is longer; what follows within this is shown at once; the last frame, before it begins again.
PAUSE, AT_ONCE, HOLD = 1.5, 0.03, 6.0
# Pixels.
CELL, LINE, BASE, MARGIN, BAR, FONT = 8.4, 19, 14, 24, 38, 14
TITLE = "a cluster on one machine: controllers c1 c2 c3, agents a1 a2"
DESCRIPTION = "A terminal: a task is submitted, the leader is killed, and the task succeeds all the same, once."
# Of a style: intensity (0 plain, 1 bold, 2 faint) and colour (an SGR number, 39 for none).
PLAIN = (0, 39)
FILLS = {31: "#ff7b72", 32: "#3fb950", 33: "#d29922", 34: "#58a6ff", 35: "#bc8cff", 36: "#39c5cf", 39: "#b7c0ca"}
BOLD, FAINT, BACKGROUND, FRAME, DIM = "#f5f8fb", "#7d8590", "#0d1117", "#30363d", "#7d8590"
CONTROL = re.compile(r"\x1b\[([0-9;]*)([A-Za-z])|[\r\n]|[^\x00-\x1f\x7f]")
ESCAPES = {"\\\\": "\\", "\\e": "\x1b", "\\r": "\r", "\\n": "\n"}


class Terminal:
    """Rows from the first on, with no end: the window's top is the caller's."""

    def __init__(self, columns):
        self.columns, self.rows, self.row, self.column, self.style = columns, [[]], 0, 0, PLAIN

    def take(self, text):
        at = 0
        while at < len(text):
            found = CONTROL.match(text, at)
            if not found:
                sys.exit(f"not known to this terminal: {text[at:at + 12]!r}")
            at = found.end()
            if found.group(2):
                self.control(found.group(2), found.group(1), found.group())
            elif found.group() == "\r":
                self.column = 0
            elif found.group() == "\n":
                self.row += 1
                if self.row == len(self.rows):
                    self.rows.append([])
            else:
                self.put(found.group())

    def put(self, character):
        if self.column == self.columns:
            sys.exit(f"row {self.row} is longer than {self.columns} columns")
        line = self.rows[self.row]
        line.extend([(" ", PLAIN)] * (self.column + 1 - len(line)))
        line[self.column] = (character, self.style)
        self.column += 1

    def control(self, final, numbers, whole):
        if final == "m":
            for number in map(int, (numbers or "0").split(";")):
                if number == 0:
                    self.style = PLAIN
                elif number in (1, 2):
                    self.style = (number, self.style[1])
                elif number in FILLS:
                    self.style = (self.style[0], number)
                else:
                    sys.exit(f"no such style here: {whole!r}")
        elif final == "K" and numbers == "2":
            self.rows[self.row] = []
        elif final == "K" and numbers in ("", "0"):
            del self.rows[self.row][self.column:]
        elif final == "A":
            self.row = max(0, self.row - int(numbers or "1"))
        else:
            sys.exit(f"not known to this terminal: {whole!r}")


class Film:
    """What was seen when: of each row its looks, with when each began and ended; the cursor's places."""

    def __init__(self, columns, height):
        self.height, self.terminal, self.now, self.typed = height, Terminal(columns), 0.0, None
        # Of each row, spans [from, to or None, cells]; (when, column, row, keys typed until the next); (when, top).
        self.looks, self.cursor, self.tops, self.echoed = [], [], [], 0.0

    def begin(self, command):
        """From here on the command is typed; its row shows it whole, behind the cursor's cover."""
        self.see()
        column, row, style = self.terminal.column, self.terminal.row, self.terminal.style
        self.typed = (command, column)
        self.cursor.append((self.now, column, row, len(command)))
        self.looks[row][-1][2] = self.terminal.rows[row] + [(character, style) for character in command]

    def take(self, text):
        if self.typed and "\r" in text:
            command, column = self.typed
            echoed = "".join(character for character, _ in self.terminal.rows[self.terminal.row][column:])
            if echoed != command:
                sys.exit(f"typed {command!r}, shown {echoed!r}")
            self.cursor.append((self.echoed, self.terminal.column, self.terminal.row, 0))
            self.typed = None
        self.terminal.take(text)
        self.echoed = self.now
        if not self.typed:
            self.see()

    def see(self):
        terminal, top = self.terminal, max(0, len(self.terminal.rows) - self.height)
        if len(terminal.rows[terminal.row]) > terminal.column:
            sys.exit(f"the cursor stands within row {terminal.row}")
        for row, cells in enumerate(terminal.rows):
            if row == len(self.looks):
                self.looks.append([])
            spans = self.looks[row]
            if (spans[-1][2] if spans else []) != cells:
                if spans:
                    spans[-1][1] = self.now
                spans.append([self.now, None, list(cells)])
        if not self.cursor or self.cursor[-1][1:] != (terminal.column, terminal.row, 0):
            self.cursor.append((self.now, terminal.column, terminal.row, 0))
        if not self.tops or self.tops[-1][1] != top:
            self.tops.append((self.now, top))


def read(path):
    with open(path, encoding="utf-8") as file:
        size, *lines = file.read().splitlines()
    film, before = Film(*map(int, size.split("x"))), 0.0
    for line in lines:
        at, kind, text = line.split(" ", 2)
        gap, before = float(at) - before, float(at)
        film.now += 0 if gap < AT_ONCE else min(gap, PAUSE)
        text = re.sub(r"\\.", lambda found: ESCAPES[found.group()], text)
        film.begin(text) if kind == ">" else film.take(text)
    return film


def fill(style):
    intensity, colour = style
    return FILLS[colour] if colour != 39 or not intensity else (BOLD if intensity == 1 else FAINT)


def text(row, cells):
    while cells and cells[-1][0] == " ":
        cells = cells[:-1]
    runs = []
    for character, style in cells:
        character = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}.get(character, character)
        if runs and (character == " " or runs[-1][0] == style):
            runs[-1][1] += character
        else:
            runs.append([style, character])
    body = "".join(run if style == PLAIN else f'<tspan fill="{fill(style)}">{run}</tspan>' for style, run in runs)
    # The width is told, for the columns to stand below each other in whichever font there is.
    return f'<text y="{row * LINE + BASE}" textLength="{number(len(cells) * CELL)}">{body}</text>' if cells else ""


def number(value):
    return f"{value:.2f}".rstrip("0").rstrip(".")


def draw(film):
    whole = film.now + HOLD
    frames, groups, spans = [], [], {}

    def at(when):
        return number(when / whole * 100) + "%"

    for row, looks in enumerate(film.looks):
        for start, end, cells in looks:
            spans.setdefault((start, end), []).append(text(row, cells))
    for (start, end), lines in sorted(spans.items(), key=lambda span: (span[0][0], span[0][1] or whole)):
        body = "".join(lines)
        if not body:
            continue
        name = f"l{len(groups)}"
        if end is None:
            frames.append(f"@keyframes {name}{{0%{{opacity:0}}{at(start)}{{opacity:1}}}}")
            groups.append(f'<g style="animation-name:{name}">{body}</g>')
        else:
            frames.append(f"@keyframes {name}{{{at(start)}{{opacity:1}}{at(end)}{{opacity:0}}}}")
            groups.append(f'<g opacity="0" style="animation-name:{name}">{body}</g>')

    def move(column, row):
        return f"translate({number(column * CELL)}px,{row * LINE}px)"

    path = ""
    for when, column, row, keys in film.cursor:
        steps = f";animation-timing-function:steps({keys})" if keys else ""
        path += f"{at(when)}{{transform:{move(column, row)}{steps}}}"
    frames.append(f"@keyframes cursor{{{path}}}")
    frames.append("@keyframes window{" + "".join(f"{at(when)}{{transform:{move(0, -top)}}}" for when, top in film.tops) + "}")

    columns, (_, column, row, _), top = film.terminal.columns, film.cursor[-1], film.tops[-1][1]
    inner, lines = columns * CELL, film.height * LINE
    width, height = round(inner + 2 * MARGIN), BAR + lines + MARGIN + 8
    return f"""<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" role="img" xml:space="preserve">
<title>{DESCRIPTION}</title>
<style>
text{{font:{FONT}px ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono","Liberation Mono",monospace;fill:{FILLS[39]};white-space:pre}}
g{{animation:{number(whole)}s step-end infinite}}
@media(prefers-reduced-motion:reduce){{g{{animation:none!important}}}}
{chr(10).join(frames)}
</style>
<rect x=".5" y=".5" width="{width - 1}" height="{height - 1}" rx="9.5" fill="{BACKGROUND}" stroke="{FRAME}"/>
<path d="M1 {BAR - 8.5}H{width - 1}" stroke="{FRAME}"/>
<text x="{width / 2}" y="20" text-anchor="middle" style="fill:{DIM};font-size:12px">{TITLE}</text>
<svg x="{MARGIN}" y="{BAR + 2}" width="{number(inner)}" height="{lines}">
<g transform="translate(0,{-top * LINE})" style="animation-name:window">
{chr(10).join(groups)}
<g transform="translate({number(column * CELL)},{row * LINE})" style="animation-name:cursor"><rect width="{number(inner)}" height="{LINE}" fill="{BACKGROUND}"/><rect y="1" width="8" height="{LINE - 2}" fill="{DIM}"/></g>
</g>
</svg>
</svg>
"""


if __name__ == "__main__":
    sys.stdout.reconfigure(encoding="utf-8")
    sys.stdout.write(draw(read(sys.argv[1])))
