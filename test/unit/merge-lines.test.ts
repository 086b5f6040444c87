import { spawnSync } from 'node:child_process';
import * as fs from 'node:fs';
import * as path from 'node:path';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { type Algorithm, diffLines } from '../../src/merge/diff.ts';
import { mergeText } from '../../src/merge/index.ts';
import { bytesOfLines, readLines } from '../../src/merge/lines.ts';
import { render } from '../../src/merge/markers.ts';
import { combine } from '../../src/merge/three-way.ts';
import { testNeeding } from '../lib/needs.ts';
import { withTemp } from '../lib/temp.ts';

const bytes = (text: string) => Buffer.from(text, 'latin1');
const merge = (ancestor: string, overlay: string, base: string) => {
  const { conflict, out } = mergeText(bytes(ancestor), bytes(overlay), bytes(base));
  return { conflict, out: out.toString('latin1') };
};
/** Each letter is a line. */
const lines = (letters: string) => [...letters].map((letter) => `${letter}\n`).join('');
/** The merge as letters, or null for a conflict. */
const letters = (ancestor: string, overlay: string, base: string) => {
  const { conflict, out } = merge(lines(ancestor), lines(overlay), lines(base));
  return conflict ? null : out.replaceAll('\n', '');
};

describe('a clean merge', () => {
  test.each([
    ['changes with one untouched line between them', 'abcde', 'aXcde', 'abcYe', 'aXcYe'],
    ['changes at the two ends', 'abcde', 'Xbcde', 'abcdY', 'XbcdY'],
    ['an insertion and a deletion apart', 'abcdef', 'abXcdef', 'abcdf', 'abXcdf'],
    ['the same change on both sides counts once', 'abcde', 'aXYde', 'aXYde', 'aXYde'],
    ['the same change on both sides, beside others', 'abcdefg', 'Xbcdeg', 'abYdeg', 'XbYdeg'],
    ['the same line appended to both', 'ab', 'abX', 'abX', 'abX'],
    ['the same deletion on both sides', 'abcde', 'abe', 'abeX', 'abeX'],
    ['the overlay emptied, the base as it was', 'abc', '', 'abc', ''],
    ['both start from nothing with the same', '', 'ab', 'ab', 'ab'],
    ['a moved block and a change elsewhere', 'abcdefgh', 'efgabcdh', 'aXcdefgh', 'efgaXcdh'],
  ])('%s', (_, ancestor, overlay, base, expected) => {
    expect(letters(ancestor, overlay, base)).toBe(expected);
    expect(letters(ancestor, base, overlay)).toBe(expected);
  });
});

describe('a conflict', () => {
  test.each([
    ['the same line changed differently', 'abc', 'aXc', 'aYc'],
    ['adjacent lines changed', 'abcd', 'aXcd', 'abYd'],
    ['an insertion right behind a changed line', 'abcd', 'aXcd', 'abYcd'],
    ['different insertions at one place', 'abcd', 'abXcd', 'abYcd'],
    ['different lines appended', 'ab', 'abX', 'abY'],
    ['deletions that overlap', 'abcdef', 'aef', 'abf'],
    ['a changed line that the other side deletes', 'abcde', 'abXde', 'abde'],
    ['the same change, but with more beside it on one side', 'abcde', 'aXcde', 'aXYde'],
    ['emptied on one side, changed on the other', 'abc', '', 'abX'],
    ['the same line added more often on one side', 'abb', 'abbb', 'abbbb'],
  ])('%s', (_, ancestor, overlay, base) => {
    expect(letters(ancestor, overlay, base)).toBeNull();
    expect(letters(ancestor, base, overlay)).toBeNull();
  });

  test('what histogram diff and the shortest diff merge differently is none of the two', () => {
    expect(letters('01212211112', '01212210111212', '0121111111102')).toBeNull();
  });

  test('diff3 reconciles a segment where the shortest diff agrees', () => {
    expect(letters('1221', '2211', '221')).toBe('2211');
  });

  test('a segment too long for diff3 is a conflict, and disputed lines in it stay', () => {
    const many = (name: string) => Array.from({ length: 2_000 }, (_, i) => `${name}${i}\n`).join('');
    const { conflict, out } = merge(`1\n2\n2\n${many('o')}`, `2\n2\n${many('a')}`, `2\n2\n1\n${many('b')}`);
    expect(conflict).toBe(true);
    expect(out).toContain('a1999\n||||||| ancestor');
  });
});

describe('lines', () => {
  test('CRLF stays CRLF', () => {
    expect(merge('a\r\nb\r\nc\r\nd\r\n', 'X\r\nb\r\nc\r\nd\r\n', 'a\r\nb\r\nc\r\nY\r\n')).toEqual({
      conflict: false,
      out: 'X\r\nb\r\nc\r\nY\r\n',
    });
  });

  test('a file converted to CRLF conflicts with an edit', () => {
    expect(merge('a\nb\nc\n', 'a\r\nb\r\nc\r\n', 'a\nX\nc\n').conflict).toBe(true);
  });

  test('a lone CR is part of its line, so changes on either side of it conflict', () => {
    expect(merge('a\rb\rc\n', 'X\rb\rc\n', 'a\rb\rY\n').conflict).toBe(true);
    expect(merge('a\rb\nc\nd\n', 'a\rb\nc\nX\n', 'Y\rb\nc\nd\n').out).toBe('Y\rb\nc\nX\n');
  });

  test('a lone CR ends a line where no file has an LF', () => {
    expect(merge('a\rb\rc\r', 'X\rb\rc\r', 'a\rb\rY').out).toBe('X\rb\rY');
    expect(merge('a\rb\r', 'X\rb\r', 'Y\rb\r').out).toBe(
      '<<<<<<< overlay\rX\r||||||| ancestor\ra\r=======\rY\r>>>>>>> base\rb\r',
    );
  });

  test('a final newline that one side drops stays dropped', () => {
    expect(merge('a\nb\nc\n', 'a\nb\nc', 'X\nb\nc\n')).toEqual({ conflict: false, out: 'X\nb\nc' });
  });

  test('lines appended behind a missing final newline', () => {
    expect(merge('a\nb\nc', 'a\nb\nc\nd', 'X\nb\nc').out).toBe('X\nb\nc\nd');
  });

  test('bytes that are no UTF-8 come through', () => {
    expect(merge('\xff\nb\n\xfe\x85\x0b\x0c\n', '\xff\nb\nX\n', '\xc3\nb\n\xfe\x85\x0b\x0c\n').out).toBe(
      '\xc3\nb\nX\n',
    );
  });

  test.each([0, 1, 2])('a NUL in input %i is refused: a conflict with the bytes of the overlay', (which) => {
    const inputs = ['a\nb\nc\n', 'X\nb\nc\n', 'a\nb\nY\n'] as [string, string, string];
    inputs[which] += '\0';
    expect(merge(...inputs)).toEqual({ conflict: true, out: inputs[1] });
  });

  test('inputs are left alone, and the result shares no memory with them', () => {
    const inputs = ['a\n', 'a\n', 'b\n'].map(bytes) as [Buffer, Buffer, Buffer];
    const { out } = mergeText(...inputs);
    out.fill(0x78);
    expect(inputs.map(String)).toEqual(['a\n', 'a\n', 'b\n']);
  });

  test('a view into a larger buffer is read by its own bounds', () => {
    const whole = new Uint8Array(Buffer.from('xa\nb\nc\nx'));
    const view = whole.subarray(1, 7);
    expect(mergeText(view, bytes('X\nb\nc\n'), bytes('a\nb\nY\n')).out.toString()).toBe('X\nb\nY\n');
  });
});

describe('markers', () => {
  test('show all three, and leave out what both sides have in common', () => {
    expect(merge(lines('abcd'), lines('aPXQd'), lines('aPYQd')).out).toBe(
      'a\nP\n<<<<<<< overlay\nX\n||||||| ancestor\nb\nc\n=======\nY\n>>>>>>> base\nQ\nd\n',
    );
  });

  test('stand around what conflicts only', () => {
    expect(merge(lines('abcdefg'), lines('XbcPefZ'), lines('abcQefg')).out).toBe(
      'X\nb\nc\n<<<<<<< overlay\nP\n||||||| ancestor\nd\n=======\nQ\n>>>>>>> base\ne\nf\nZ\n',
    );
  });

  test('stand on lines of their own though no side has a final newline', () => {
    expect(merge('a\nb', 'a\nX', 'a\nY').out).toBe(
      'a\n<<<<<<< overlay\nX\n||||||| ancestor\nb\n=======\nY\n>>>>>>> base\n',
    );
  });

  test('have the terminator of the file', () => {
    expect(merge('a\r\nb', 'a\r\nX', 'a\r\n').out).toBe(
      'a\r\n<<<<<<< overlay\r\nX\r\n||||||| ancestor\r\nb\r\n=======\r\n>>>>>>> base\r\n',
    );
  });

  test('of a lone CR at the end of the last line is no terminator made', () => {
    expect(merge('a\nb', 'a\nX\r', 'a\nY').out).toBe(
      'a\n<<<<<<< overlay\nX\r\n||||||| ancestor\nb\n=======\nY\n>>>>>>> base\n',
    );
  });
});

describe('the place of a change', () => {
  const algorithms: Algorithm[] = ['histogram', 'myers'];
  const hunks = (algorithm: Algorithm, before: string, after: string) => {
    const files = readLines(bytes(lines(before)), bytes(lines(after)), bytes(''));
    return diffLines(algorithm, files.ancestor.ids, files.overlay.ids, files.table.length);
  };

  test.each(algorithms)('%s: an insertion among equal lines slides to the last of them', (algorithm) => {
    expect(hunks(algorithm, 'xppy', 'xpppy')).toEqual([{ start: 3, end: 3, from: 3, to: 4 }]);
    expect(hunks(algorithm, 'x-y', 'x-n-y')).toEqual([{ start: 2, end: 2, from: 2, to: 4 }]);
  });

  test.each(algorithms)('%s: a deletion slides to stand beside an insertion', (algorithm) => {
    expect(hunks(algorithm, 'xppy', 'xqpy')).toEqual([{ start: 1, end: 2, from: 1, to: 2 }]);
  });

  test('frequent lines are no anchor, and what only they hold together is compared by the shortest diff', () => {
    const dull = '-'.repeat(70);
    expect(hunks('histogram', `${dull}a${dull}`, `b${dull}${dull}`)).toEqual([
      { start: 0, end: 0, from: 0, to: 1 },
      { start: 70, end: 71, from: 71, to: 71 },
    ]);
  });
});

/** Texts that look alike, with what real ones have: repeated lines, CRLF, lone CR, no newline at the end. */
const line = fc.oneof(
  { weight: 6, arbitrary: fc.constantFrom('a\n', 'b\n', 'c\n', '\n', '}\n') },
  { weight: 2, arbitrary: fc.nat(40).map((n) => `unique ${n}\n`) },
  { weight: 1, arbitrary: fc.constantFrom('a\r\n', '\r\n', 'b\r', '\r', 'a') },
);
const text = fc.array(line, { maxLength: 24 }).map((all) => all.join(''));
const bytesOnly = fc
  .uint8Array({ maxLength: 60 })
  .map((array) =>
    Buffer.from(array.map((byte) => [10, 13, 97, 98, 13, 10, 255, byte || 1][byte % 8]!)).toString('latin1'),
  );

interface Edit {
  at: number;
  drop: number;
  put: string[];
}
const edits = fc.array(
  fc.record({ at: fc.nat(1_000), drop: fc.nat(2), put: fc.array(line, { maxLength: 3 }) }),
  { minLength: 1, maxLength: 3 },
);
function edited(from: string, changes: readonly Edit[]): string {
  const all = from.match(/[^\n]*\n|[^\n]+$/g) ?? [];
  for (const { at, drop, put } of changes) all.splice(at % (all.length + 1), drop, ...put);
  return all.join('');
}
/** An ancestor and what two sides made of it. */
const related = fc
  .tuple(text, edits, edits)
  .map(([ancestor, ours, theirs]) => [ancestor, edited(ancestor, ours), edited(ancestor, theirs)] as const);

describe('for any texts', () => {
  const two = fc.tuple(fc.oneof(text, bytesOnly), fc.oneof(text, bytesOnly));
  const clean = (out: string) => ({ conflict: false, out });

  test('a change of one side, or the same of both, is the result', () => {
    fc.assert(
      fc.property(two, ([a, b]) => {
        expect(merge(a, a, b)).toEqual(clean(b));
        expect(merge(a, b, a)).toEqual(clean(b));
        expect(merge(a, b, b)).toEqual(clean(b));
      }),
    );
  });

  test('lines put together again are the bytes that they were', () => {
    fc.assert(
      fc.property(bytesOnly, bytesOnly, bytesOnly, (...inputs) => {
        const files = readLines(...(inputs.map(bytes) as [Buffer, Buffer, Buffer]));
        const read = [files.ancestor, files.overlay, files.base];
        const whole = read.map((file) => bytesOfLines(file, 0, file.ids.length).toString('latin1'));
        const joined = read.map((file) => [...file.ids].map((id) => files.table[id]).join(''));
        expect(whole).toEqual(inputs);
        expect(joined).toEqual(inputs);
      }),
    );
  });

  test.each(['histogram', 'myers'] as const)('%s: the diff, applied, gives the other file', (algorithm) => {
    fc.assert(
      fc.property(fc.oneof(related, fc.tuple(bytesOnly, bytesOnly)), ([before, after]) => {
        const files = readLines(bytes(before), bytes(after), bytes(before));
        const overlay = diffLines(algorithm, files.ancestor.ids, files.overlay.ids, files.table.length);
        const applied = render(files, combine(files, { overlay, base: [] }));
        expect(applied.toString('latin1')).toBe(after);
      }),
    );
  });

  test('the sides are alike: swapped, the merge is as clean and has the same bytes', () => {
    fc.assert(
      fc.property(related, ([ancestor, overlay, base]) => {
        const one = merge(ancestor, overlay, base);
        const other = merge(ancestor, base, overlay);
        expect(other.conflict).toBe(one.conflict);
        if (!one.conflict) expect(other.out).toBe(one.out);
      }),
    );
  });

  test('a clean result has no markers, and every line of it comes from an input', () => {
    fc.assert(
      fc.property(related, (inputs) => {
        const { conflict, out } = merge(...inputs);
        const known = new Set(inputs.flatMap((input) => input.match(/[^\n]*\n|[^\n]+$/g) ?? []));
        if (conflict || inputs.some((input) => !input.includes('\n'))) return;
        expect((out.match(/[^\n]*\n|[^\n]+$/g) ?? []).filter((found) => !known.has(found))).toEqual([]);
      }),
    );
  });

  test('markers stand in order, each on a line of its own', () => {
    fc.assert(
      fc.property(related, (inputs) => {
        const { conflict, out } = merge(...inputs);
        const markers = (text: string) =>
          text.match(/<<<<<<< overlay|\|{7} ancestor|={7}|>>>>>>> base/g) ?? [];
        const lone =
          out.match(/(?<=^|[\r\n])(<<<<<<< overlay|\|{7} ancestor|={7}|>>>>>>> base)(?=[\r\n])/g) ?? [];
        expect(lone).toEqual(markers(out));
        const one = ['<<<<<<< overlay', '||||||| ancestor', '=======', '>>>>>>> base'];
        expect(lone).toEqual(Array.from({ length: lone.length / 4 }, () => one).flat());
        expect(lone.length > 0).toBe(conflict);
      }),
    );
  });

  test('changes apart from each other both survive', () => {
    const spots = fc.uniqueArray(fc.nat(30), { minLength: 2, maxLength: 12 });
    fc.assert(
      fc.property(spots, fc.array(fc.boolean(), { minLength: 12, maxLength: 12 }), (places, sides) => {
        const ancestor = Array.from({ length: 62 }, (_, i) => `line ${i}\n`);
        const overlay = [...ancestor];
        const base = [...ancestor];
        const expected = [...ancestor];
        for (const [nth, place] of places.entries()) {
          expected[place * 2] = `changed ${place}\n`;
          (sides[nth] ? overlay : base)[place * 2] = `changed ${place}\n`;
        }
        expect(merge(ancestor.join(''), overlay.join(''), base.join(''))).toEqual(clean(expected.join('')));
      }),
    );
  });
});

describe('beside git', () => {
  testNeeding(
    { commands: ['git'] },
    'what merges cleanly does so for git merge-file, to the same bytes',
    () =>
      withTemp('memory', async (dir) => {
        const files = ['overlay', 'ancestor', 'base'].map((name) => path.join(dir, name));
        const env = { ...process.env, GIT_CONFIG_NOSYSTEM: '1', GIT_CONFIG_GLOBAL: '/dev/null' };
        let cleanOnes = 0;
        // Always the same cases: git's diffs are heuristics, too, and another version may choose differently.
        for (const [ancestor, overlay, base] of fc.sample(related, { seed: 20_240_611, numRuns: 400 })) {
          const ours = merge(ancestor, overlay, base);
          if (ours.conflict || ![ancestor, overlay, base].join('').includes('\n')) continue;
          const inputs = [overlay, ancestor, base];
          for (const [i, file] of files.entries()) fs.writeFileSync(file, bytes(inputs[i]!));
          const git = spawnSync('git', ['merge-file', '--diff3', '-q', '-p', ...files], { env });
          expect({ conflict: git.status !== 0, out: git.stdout.toString('latin1') }).toEqual(ours);
          cleanOnes++;
        }
        expect(cleanOnes).toBeGreaterThan(80);
      }),
  );
});
