import { describe, expect, test } from 'vitest';
import { commandText, parseCommand } from '../../src/control/grammar.ts';
import { E } from '../../src/lib/errno.ts';

const parse = (text: string) => parseCommand(Buffer.from(text, 'latin1'));
const command = (text: string) => {
  const parsed = parse(text);
  return 'command' in parsed ? parsed.command : parsed.reason;
};

describe('a write to the control file', () => {
  test.each([
    ['resolve 17@3 base\n', { verb: 'resolve', id: 17, rev: 3, take: 'base' }],
    ['  resolve   17@3   merged  ', { verb: 'resolve', id: 17, rev: 3, take: 'merged' }],
    ['undo 42\r\n', { verb: 'undo', seq: 42 }],
    ['reconcile', { verb: 'reconcile', path: '' }],
    ['reconcile /etc//ssh/../passwd\n', { verb: 'reconcile', path: 'etc/passwd' }],
    ['reconcile a name with blanks\n', { verb: 'reconcile', path: 'a name with blanks' }],
    ['reconcile caf\\xe9\n', { verb: 'reconcile', path: 'caf\xe9' }],
    ['reconcile caf\xc3\xa9\n', { verb: 'reconcile', path: 'caf\xc3\xa9' }],
    ['hold\n', { verb: 'hold' }],
    ['release', { verb: 'release' }],
  ])('%j is a verb', (text, expected) => {
    expect(command(text)).toEqual(expected);
  });

  test.each([
    ['', 'empty'],
    ['\n', 'empty'],
    ['frob 1', 'unknown verb frob: one of resolve, undo, reconcile, hold, release'],
    ['resolve 17 base', 'resolve needs the revision that was looked at: ID@REV'],
    ['resolve 17@3', 'resolve takes ID@REV and one of overlay, base, merged'],
    ['resolve 17@3 ours', 'resolve to ours: one of overlay, base, merged'],
    ['resolve 17@3 file', 'resolve to file: one of overlay, base, merged'],
    ['resolve -1@3 base', 'resolve takes ID@REV and one of overlay, base, merged'],
    ['undo', 'undo takes a sequence number, as in events'],
    ['undo etc/passwd', 'undo takes a sequence number, as in events'],
    ['hold now', 'hold takes no argument'],
    ['undo 1\nundo 2\n', 'one verb per write'],
    ['undo 1\0', 'holds a NUL byte'],
    [`reconcile ${'x'.repeat(30_000)}`, 'too long'],
  ])('%j is EINVAL, with a reason', (text, reason) => {
    expect(parse(text)).toEqual({ errno: E.EINVAL, reason });
  });

  test('what a command is written as parses to the same command', () => {
    for (const text of ['resolve 17@3 base', 'undo 42', 'reconcile', 'reconcile etc/x', 'hold', 'release']) {
      const parsed = parse(text);
      expect('command' in parsed && commandText(parsed.command)).toBe(text);
    }
  });
});
