import { describe, expect, it } from 'vitest';
import { markMatches, parseAnsi } from './ansi';
import { visible } from './controls';

const textOf = (message: string) => parseAnsi(message).map((piece) => piece.text).join('');
const ESC = '\u001b';

describe('parseAnsi', () => {
  it('leaves plain text alone, markup included', () => {
    expect(parseAnsi('<script>window.pwned=1</script> & <img onerror=x>')).toEqual([
      { text: '<script>window.pwned=1</script> & <img onerror=x>', className: '' },
    ]);
    expect(parseAnsi('')).toEqual([]);
  });

  it('maps SGR colours and attributes to classes', () => {
    expect(parseAnsi(`${ESC}[31mred${ESC}[0m plain ${ESC}[1;4;92mloud${ESC}[22;24;39m.`)).toEqual([
      { text: 'red', className: 'a-f1' },
      { text: ' plain ', className: '' },
      { text: 'loud', className: 'a-f10 a-bold a-underline' },
      { text: '.', className: '' },
    ]);
    expect(parseAnsi(`${ESC}[43mbg${ESC}[m`)[0]).toEqual({ text: 'bg', className: 'a-b3' });
    expect(parseAnsi(`${ESC}[7mswap`)[0]).toEqual({ text: 'swap', className: 'a-b7' });
    expect(parseAnsi(`${ESC}[8mhidden`)).toEqual([{ text: 'hidden', className: '' }]);
  });

  it('maps 256 colours and true colours to the nearest of the sixteen', () => {
    expect(parseAnsi(`${ESC}[38;5;9mx`)[0]?.className).toBe('a-f9');
    expect(parseAnsi(`${ESC}[38;5;196mx`)[0]?.className).toMatch(/^a-f(1|9)$/);
    expect(parseAnsi(`${ESC}[38;5;255mx`)[0]?.className).toMatch(/^a-f(7|15)$/);
    expect(parseAnsi(`${ESC}[48;2;36;114;200mx`)[0]?.className).toBe('a-b4');
    expect(parseAnsi(`${ESC}[38:2:36:114:200mx`)[0]?.className).toBe('a-f4');
    expect(parseAnsi(`${ESC}[38mx`)).toEqual([{ text: 'x', className: '' }]);
  });

  it.each([
    ['cursor movement', `a${ESC}[2J${ESC}[1;1Hb${ESC}[?25lc`, 'abc'],
    ['title by OSC and BEL', `a${ESC}]0;evil\u0007b`, 'ab'],
    ['link by OSC 8 and ST', `${ESC}]8;;https://evil.example${ESC}\\click${ESC}]8;;${ESC}\\`, 'click'],
    ['clipboard by OSC 52', `${ESC}]52;c;ZXZpbA==\u0007ok`, 'ok'],
    ['DCS, SOS, PM, APC', `a${ESC}Pq${ESC}\\b${ESC}Xs${ESC}\\c${ESC}^p${ESC}\\d${ESC}_a${ESC}\\e`, 'abcde'],
    ['an unterminated OSC hides nothing', `a${ESC}]0;still here`, 'a0;still here'],
    ['a lone ESC', `a${ESC}`, 'a'],
    ['two-byte escapes', `a${ESC}cb${ESC}(Bc${ESC}7d`, 'abcd'],
    ['C1 CSI and OSC', 'a\u009b31mb\u009d0;t\u009cc\u0085d', 'abcd'],
    ['an unterminated CSI', `a${ESC}[31`, 'a'],
    ['a private SGR', `${ESC}[>4;2mx`, 'x'],
    ['NUL, BEL, BS, DEL', 'a\u0000b\u0007c\bd\u007fe', 'abcde'],
    ['CR overwrite becomes lines', '10%\r20%\r\n30%\r', '10%\n20%\n30%'],
    ['tabs and newlines stay', 'a\tb\nc', 'a\tb\nc'],
  ])('%s', (_name, input, want) => {
    expect(textOf(input)).toBe(want);
  });

  it('shows bidi controls and invisible characters as escapes', () => {
    expect(parseAnsi('user\u202e admin\u202c')).toEqual([
      { text: 'user', className: '' },
      { text: '⟨U+202E⟩', className: 'a-esc' },
      { text: ' admin', className: '' },
      { text: '⟨U+202C⟩', className: 'a-esc' },
    ]);
    expect(textOf('pass\u200bword\ufeff')).toBe('pass⟨U+200B⟩word⟨U+FEFF⟩');
    expect(textOf('\u2066x\u2069 \u{e0041} \u00ad')).toBe('⟨U+2066⟩x⟨U+2069⟩ ⟨U+E0041⟩ ⟨U+00AD⟩');
    expect(textOf('half \ud83d end')).toBe('half ⟨U+D83D⟩ end');
  });

  it('keeps the joiner inside an emoji, and only there', () => {
    expect(textOf('👩‍💻 👩🏽‍💻 a\u200db')).toBe('👩‍💻 👩🏽‍💻 a⟨U+200D⟩b');
  });

  it('leaves no control character, whatever comes in', () => {
    let seed = 7;
    const next = () => (seed = (seed * 1103515245 + 12345) % 2147483648);
    const alphabet = [ESC, '[', ']', ';', 'm', '3', '8', '\u0007', '\\', '\u009b', '\u009c', 'x', '\u202e', '\r', '\n', 'P', '👩', '\u200d', '\ud800', ' '];
    for (let round = 0; round < 3000; round++) {
      const message = Array.from({ length: next() % 40 }, () => alphabet[next() % alphabet.length]).join('');
      expect(textOf(message), JSON.stringify(message)).not.toMatch(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069\u200b]/);
    }
  });

  it('stays linear and bounded on hostile lengths', () => {
    const length = 256 * 1024;
    expect(textOf(`${ESC}]`.repeat(length / 2))).toBe('');
    expect(textOf(`${ESC}P`.repeat(length / 2))).toBe('');
    expect(textOf('x'.repeat(length))).toHaveLength(length);
    const colourful = parseAnsi(`${ESC}[31ma${ESC}[32mb`.repeat(length / 12));
    expect(colourful.length).toBeLessThanOrEqual(4_001);
    expect(colourful.map((piece) => piece.text).join('')).toBe('ab'.repeat(Math.floor(length / 12)));
    expect(parseAnsi('\u202ea'.repeat(length / 2)).length).toBeLessThanOrEqual(4_001);
  });
});

describe('markMatches', () => {
  it('marks across pieces without case', () => {
    const marked = markMatches(parseAnsi(`Time${ESC}[31mOUT${ESC}[0m and timeout`), 'timeout');
    expect(marked).toEqual([
      { text: 'Time', className: '', mark: true },
      { text: 'OUT', className: 'a-f1', mark: true },
      { text: ' and ', className: '', mark: false },
      { text: 'timeout', className: '', mark: true },
    ]);
  });

  it('changes nothing without a match', () => {
    const pieces = parseAnsi('quiet');
    expect(markMatches(pieces, 'loud')).toBe(pieces);
    expect(markMatches(pieces, '')).toBe(pieces);
  });
});

describe('visible', () => {
  it('escapes controls in ids and metadata', () => {
    expect(visible('a\u001b[31m\u202eb')).toBe('a⟨U+001B⟩[31m⟨U+202E⟩b');
    expect(visible('plain äöü 日本')).toBe('plain äöü 日本');
  });
});
