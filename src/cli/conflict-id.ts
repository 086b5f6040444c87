// How conflicts and events are named on the command line: by a path, or by a mount and ID[@REV] or SEQ.
import type { ConflictTarget } from '../control/verbs.ts';
import { usage } from './io.ts';
import { shown } from './paths.ts';

export interface NamedConflict {
  target: ConflictTarget;
  rev: number | null;
}

/** `id` as typed: ID or ID@REV; undefined: the path itself is meant. */
export function conflictTarget(where: { path: string }, id: string | undefined): NamedConflict {
  if (id === undefined) return { target: { path: where.path }, rev: null };
  const match = /^(\d{1,15})(?:@(\d{1,15}))?$/.exec(id);
  if (match === null)
    throw usage(`${shown(id)}: not the id of a conflict: ID or ID@REV, as kasane conflicts lists them`);
  return { target: { id: Number(match[1]) }, rev: match[2] === undefined ? null : Number(match[2]) };
}

export function wholeNumber(what: string, text: string): number {
  if (!/^\d{1,15}$/.test(text)) throw usage(`${what} ${shown(text)}: not a whole number`);
  return Number(text);
}
