/**
 * Characters that a log author can use to make text look like other text:
 * direction overrides, invisible characters, fillers, tags. They are shown as
 * ⟨U+202E⟩ instead of being obeyed.
 */
const deceptive =
  '\\u00ad\\u061c\\u115f\\u1160\\u180b-\\u180f\\u200b-\\u200f\\u2028-\\u202e\\u2060-\\u206f\\u3164\\ufeff\\uffa0\\ufff9-\\ufffb\\u{1bca0}-\\u{1bca3}\\u{1d173}-\\u{1d17a}\\u{e0000}-\\u{e0fff}';
const loneSurrogate = '\\p{Cs}';
const control = '\\u0000-\\u0008\\u000b-\\u001f\\u007f-\\u009f';

const deceptiveRun = new RegExp(`[${deceptive}${loneSurrogate}]`, 'gu');
const anySpecial = new RegExp(`[${deceptive}${loneSurrogate}${control}]`, 'u');
const controlOrDeceptive = new RegExp(`[${deceptive}${loneSurrogate}${control}]`, 'gu');
const emoji = /\p{Extended_Pictographic}/u;

/** Reports whether the text needs more than being put into a text node. */
export function hasSpecial(text: string): boolean {
  return anySpecial.test(text);
}

export function escapeOf(char: string): string {
  return `⟨U+${(char.codePointAt(0) ?? 0).toString(16).toUpperCase().padStart(4, '0')}⟩`;
}

/** Splits text at deceptive characters; those are the pieces with `escape`. */
export function splitDeceptive(text: string): { text: string; escape: boolean }[] {
  const pieces: { text: string; escape: boolean }[] = [];
  let start = 0;
  for (const match of text.matchAll(deceptiveRun)) {
    const at = match.index;
    if (joinsEmoji(text, at)) continue;
    if (at > start) pieces.push({ text: text.slice(start, at), escape: false });
    pieces.push({ text: escapeOf(match[0]), escape: true });
    start = at + match[0].length;
  }
  if (start < text.length) pieces.push({ text: text.slice(start), escape: false });
  return pieces;
}

/** One plain string with every control and deceptive character made visible. */
export function visible(text: string): string {
  return hasSpecial(text) ? text.replace(controlOrDeceptive, (char) => escapeOf(char)) : text;
}

/** A zero-width joiner between two pictographs is how 👩‍💻 is written. */
function joinsEmoji(text: string, at: number): boolean {
  if (text[at] !== '\u200d') return false;
  const before = text.slice(Math.max(0, at - 5), at).replace(/\ufe0f|[\u{1f3fb}-\u{1f3ff}]/gu, '');
  const after = text.slice(at + 1, at + 3);
  const last = [...before].at(-1) ?? '';
  return (emoji.test(last) || /[\u{1f3fb}-\u{1f3ff}]$/u.test(text.slice(0, at))) && emoji.test([...after][0] ?? '');
}
