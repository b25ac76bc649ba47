import { hasSpecial, splitDeceptive } from './controls';

/**
 * Turns a log message, which is hostile text, into pieces for text nodes.
 * SGR (colour) sequences become class names; every other escape or control
 * sequence is dropped; deceptive characters become visible escapes. Nothing
 * is ever interpreted as markup, and the work is linear in the length.
 */
export interface Piece {
  text: string;
  /** Class names of the piece, '' for plain text. */
  className: string;
  mark?: boolean;
}

interface Style {
  fg: number; // 0-15, or -1
  bg: number;
  bold: boolean;
  dim: boolean;
  italic: boolean;
  underline: boolean;
  strike: boolean;
  inverse: boolean;
}

const plain: Style = { fg: -1, bg: -1, bold: false, dim: false, italic: false, underline: false, strike: false, inverse: false };

/** More pieces than this are joined: a message may change its colour at every character. */
const maxPieces = 4_000;

export function parseAnsi(message: string): Piece[] {
  if (!hasSpecial(message)) return message ? [{ text: message, className: '' }] : [];
  return new Parser(message).run();
}

const ESC = 0x1b;
const BEL = 0x07;

class Parser {
  private readonly pieces: Piece[] = [];
  private text = '';
  private style: Style = plain;
  private at = 0;
  // Where no terminator follows, none follows any later position either:
  // remembering it keeps "ESC ] ESC ] …" linear.
  private noBell = false;
  private noTerminator = false;

  constructor(private readonly input: string) {}

  run(): Piece[] {
    const { input } = this;
    while (this.at < input.length) {
      const code = input.charCodeAt(this.at);
      if (code === ESC) this.escape();
      else if (code === 0x0d) this.carriageReturn();
      else if (code === 0x09 || code === 0x0a || (code >= 0x20 && code < 0x7f) || code > 0x9f) this.plainRun();
      else if (code === 0x9b) this.controlSequence(this.at + 1);
      else if (code === 0x9d || code === 0x90 || code === 0x98 || code === 0x9e || code === 0x9f) this.controlString(this.at + 1, code === 0x9d);
      else this.at++; // every other C0 or C1 control
    }
    this.flush();
    return this.pieces;
  }

  private plainRun(): void {
    const from = this.at;
    const { input } = this;
    let code = 0x20;
    while (code === 0x09 || code === 0x0a || (code >= 0x20 && code < 0x7f) || code > 0x9f) code = input.charCodeAt(++this.at); // NaN at the end
    this.text += input.slice(from, this.at);
  }

  /** A return that overwrites its line elsewhere starts a new one here: nothing is hidden. */
  private carriageReturn(): void {
    this.at++;
    const next = this.input.charCodeAt(this.at);
    if (next !== 0x0a && next !== 0x0d && this.at < this.input.length) this.text += '\n';
  }

  private escape(): void {
    const { input } = this;
    const code = input.charCodeAt(this.at + 1);
    if (code === 0x5b) this.controlSequence(this.at + 2);
    else if (code === 0x5d) this.controlString(this.at + 2, true);
    else if (code === 0x50 || code === 0x58 || code === 0x5e || code === 0x5f) this.controlString(this.at + 2, false);
    else {
      let end = this.at + 1;
      while (inRange(input.charCodeAt(end), 0x20, 0x2f)) end++;
      this.at = inRange(input.charCodeAt(end), 0x30, 0x7e) ? end + 1 : end;
    }
  }

  /** CSI: parameters, intermediates, one final byte. Only a clean "m" counts. */
  private controlSequence(from: number): void {
    const { input } = this;
    let end = from;
    while (inRange(input.charCodeAt(end), 0x30, 0x3f)) end++;
    const parameters = input.slice(from, end);
    const intermediates = end;
    while (inRange(input.charCodeAt(end), 0x20, 0x2f)) end++;
    const final = input.charCodeAt(end);
    if (final === 0x6d && end === intermediates && /^[\d;:]*$/.test(parameters)) {
      this.flush();
      this.style = applySgr(this.style, parameters);
    }
    this.at = inRange(final, 0x40, 0x7e) ? end + 1 : end;
  }

  /**
   * OSC, DCS, SOS, PM, APC: dropped up to their terminator. Where there is
   * none only the introducer is dropped, so that nothing after it is hidden.
   */
  private controlString(from: number, bellEnds: boolean): void {
    const { input } = this;
    let end = -1;
    if (!this.noTerminator) {
      terminator.lastIndex = from;
      const match = terminator.exec(input);
      if (match) end = match.index + match[0].length;
      else this.noTerminator = true;
    }
    if (bellEnds && !this.noBell) {
      const bell = input.indexOf(String.fromCharCode(BEL), from);
      if (bell < 0) this.noBell = true;
      else if (end < 0 || bell < end) end = bell + 1;
    }
    this.at = end < 0 ? from : end;
  }

  private flush(): void {
    if (!this.text) return;
    const className = this.pieces.length < maxPieces ? classOf(this.style) : '';
    for (const part of splitDeceptive(this.text)) {
      const name = part.escape && this.pieces.length < maxPieces ? 'a-esc' : className;
      const last = this.pieces.at(-1);
      if (last && last.className === name) last.text += part.text;
      else this.pieces.push({ text: part.text, className: name });
    }
    this.text = '';
  }
}

const terminator = /\u001b\\|\u009c/g;

function inRange(code: number, low: number, high: number): boolean {
  return code >= low && code <= high;
}

function classOf(style: Style): string {
  const names: string[] = [];
  const fg = style.inverse ? style.bg : style.fg;
  const bg = style.inverse ? (style.fg < 0 ? 7 : style.fg) : style.bg;
  if (fg >= 0) names.push(`a-f${fg}`);
  if (bg >= 0) names.push(`a-b${bg}`);
  if (style.bold) names.push('a-bold');
  if (style.dim) names.push('a-dim');
  if (style.italic) names.push('a-italic');
  if (style.underline) names.push('a-underline');
  if (style.strike) names.push('a-strike');
  return names.join(' ');
}

function applySgr(from: Style, parameters: string): Style {
  const style = { ...from };
  // At most 64 codes: a sequence of thousands means nothing.
  const codes = parameters.replaceAll(':', ';').split(';', 64).map(Number);
  for (let i = 0; i < codes.length; i++) {
    const code = codes[i] ?? 0;
    if (code === 38 || code === 48) {
      const [color, used] = extendedColor(codes, i + 1);
      i += used;
      if (color >= 0) style[code === 38 ? 'fg' : 'bg'] = color;
    } else applyCode(style, code);
  }
  return style;
}

function applyCode(style: Style, code: number): void {
  if (code === 0) Object.assign(style, plain);
  else if (code === 1) style.bold = true;
  else if (code === 2) style.dim = true;
  else if (code === 3) style.italic = true;
  else if (code === 4) style.underline = true;
  else if (code === 7) style.inverse = true;
  else if (code === 9) style.strike = true;
  else if (code === 22) style.bold = style.dim = false;
  else if (code === 23) style.italic = false;
  else if (code === 24) style.underline = false;
  else if (code === 27) style.inverse = false;
  else if (code === 29) style.strike = false;
  else if (inRange(code, 30, 37)) style.fg = code - 30;
  else if (code === 39) style.fg = -1;
  else if (inRange(code, 40, 47)) style.bg = code - 40;
  else if (code === 49) style.bg = -1;
  else if (inRange(code, 90, 97)) style.fg = code - 90 + 8;
  else if (inRange(code, 100, 107)) style.bg = code - 100 + 8;
  // 8 (conceal) is ignored on purpose: a log line hides nothing.
}

/** The colour after 38 or 48, and how many codes it took. */
function extendedColor(codes: number[], at: number): [number, number] {
  if (codes[at] === 5) return [nearest256(codes[at + 1] ?? 0), 2];
  if (codes[at] === 2) return [nearestRgb(codes[at + 1] ?? 0, codes[at + 2] ?? 0, codes[at + 3] ?? 0), 4];
  return [-1, 0];
}

function nearest256(index: number): number {
  if (index < 16) return Math.max(0, Math.trunc(index));
  if (index >= 232) {
    const grey = Math.min(index, 255) * 10 - 2312;
    return nearestRgb(grey, grey, grey);
  }
  const step = (n: number) => (n === 0 ? 0 : 55 + 40 * n);
  const cube = index - 16;
  return nearestRgb(step(Math.floor(cube / 36)), step(Math.floor(cube / 6) % 6), step(cube % 6));
}

const palette: readonly (readonly [number, number, number])[] = [
  [0, 0, 0], [205, 49, 49], [13, 188, 121], [229, 229, 16], [36, 114, 200], [188, 63, 188], [17, 168, 205], [229, 229, 229],
  [102, 102, 102], [241, 76, 76], [35, 209, 139], [245, 245, 67], [59, 142, 234], [214, 112, 214], [41, 184, 219], [255, 255, 255],
];

function nearestRgb(r: number, g: number, b: number): number {
  let best = 0;
  let least = Infinity;
  palette.forEach(([pr, pg, pb], index) => {
    const distance = (pr - r) ** 2 + (pg - g) ** 2 + (pb - b) ** 2;
    if (distance < least) [least, best] = [distance, index];
  });
  return best;
}

/** Marks every occurrence of the searched text, also across colour changes. */
export function markMatches(pieces: readonly Piece[], search: string): readonly Piece[] {
  const needle = search.toLowerCase();
  const whole = pieces.map((piece) => piece.text).join('');
  const folded = whole.toLowerCase();
  if (!needle || folded.length !== whole.length) return pieces;
  const ranges: [number, number][] = [];
  for (let at = folded.indexOf(needle); at >= 0 && ranges.length < 200; at = folded.indexOf(needle, at + needle.length)) {
    ranges.push([at, at + needle.length]);
  }
  return ranges.length === 0 ? pieces : cutAt(pieces, ranges);
}

function cutAt(pieces: readonly Piece[], ranges: readonly [number, number][]): Piece[] {
  const out: Piece[] = [];
  let offset = 0;
  let next = 0;
  for (const piece of pieces) {
    let from = 0;
    while (from < piece.text.length) {
      while (next < ranges.length && ranges[next]![1] <= offset + from) next++;
      const [start, end] = ranges[next] ?? [Infinity, Infinity];
      const mark = start <= offset + from;
      const to = Math.min(piece.text.length, (mark ? end : start) - offset);
      out.push({ text: piece.text.slice(from, to), className: piece.className, mark });
      from = to;
    }
    offset += piece.text.length;
  }
  return out;
}
