// The language of the control file: one verb per write. Pure; bytes in, a command or a reason out.
// What retransmission (NFS) must not do twice names what it means: ID@REV, SEQ.
import { E } from '../lib/errno.ts';
import { type Take, takes } from './verbs.ts';

export type Command =
  | { verb: 'resolve'; id: number; rev: number; take: Take }
  | { verb: 'undo'; seq: number }
  | { verb: 'reconcile'; path: string }
  | { verb: 'hold' }
  | { verb: 'release' };

export type Parsed = { command: Command } | { errno: number; reason: string };

/** Longest write that is taken for a verb: a path of 4096 bytes, escaped, and the verb. */
export const COMMAND_LIMIT = 20_000;

export const verbWords = ['resolve', 'undo', 'reconcile', 'hold', 'release'] as const;

/** One line with or without a newline at its end. A path may be plain or escaped as in `conflicts`. */
export function parseCommand(bytes: Uint8Array): Parsed {
  if (bytes.length > COMMAND_LIMIT) return bad('too long');
  const text = Buffer.from(bytes)
    .toString('latin1')
    .replace(/\r?\n$/, '');
  if (text.includes('\n')) return bad('one verb per write');
  if (text.includes('\0')) return bad('holds a NUL byte');
  const match = /^ *(\S+)(?: +(.*?))? *$/.exec(text);
  if (match === null) return bad('empty');
  const word = match[1] as string;
  const rest = match[2] ?? '';
  switch (word) {
    case 'resolve':
      return parseResolve(rest);
    case 'undo':
      return parseUndo(rest);
    case 'reconcile':
      return { command: { verb: 'reconcile', path: parsePath(rest) } };
    case 'hold':
    case 'release':
      return rest === '' ? { command: { verb: word } } : bad(`${word} takes no argument`);
    default:
      return bad(`unknown verb ${word.slice(0, 40)}: one of ${verbWords.join(', ')}`);
  }
}

function parseResolve(rest: string): Parsed {
  const match = /^(\d{1,15})(?:@(\d{1,15}))? +(\S+)$/.exec(rest);
  if (match === null) return bad(`resolve takes ID@REV and one of ${takes.join(', ')}`);
  if (match[2] === undefined) return bad('resolve needs the revision that was looked at: ID@REV');
  const take = takes.find((one) => one === match[3]);
  if (take === undefined) return bad(`resolve to ${match[3]?.slice(0, 40)}: one of ${takes.join(', ')}`);
  return { command: { verb: 'resolve', id: Number(match[1]), rev: Number(match[2]), take } };
}

function parseUndo(rest: string): Parsed {
  if (!/^\d{1,15}$/.test(rest)) return bad('undo takes a sequence number, as in events');
  return { command: { verb: 'undo', seq: Number(rest) } };
}

/** From the union's root, with or without a leading slash; '' for all. */
function parsePath(text: string): string {
  const name = text.includes('\\x') ? unescapeBytes(text) : text;
  const parts: string[] = [];
  for (const part of name.split('/')) {
    if (part === '' || part === '.') continue;
    if (part === '..') parts.pop();
    else parts.push(part);
  }
  return parts.join('/');
}

/** As unescapeName, but of text that is bytes already. */
function unescapeBytes(text: string): string {
  return text.replace(/\\x([0-9a-f]{2})/gi, (_, hex: string) =>
    String.fromCharCode(Number.parseInt(hex, 16)),
  );
}

function bad(reason: string): Parsed {
  return { errno: E.EINVAL, reason };
}

/** The command as it stands in control.last. */
export function commandText(command: Command): string {
  switch (command.verb) {
    case 'resolve':
      return `resolve ${command.id}@${command.rev} ${command.take}`;
    case 'undo':
      return `undo ${command.seq}`;
    case 'reconcile':
      return command.path === '' ? 'reconcile' : `reconcile ${command.path}`;
    default:
      return command.verb;
  }
}
