// Shapes of what the index keeps. The kinds are those of the control interface, which lies beside this layer
// and is not imported: the strings must stay the same.
import type { Fingerprint } from '../lib/fingerprint.ts';
import type { Origin } from './origin.ts';

/** States of a path that has a record, as in the table of the rules; F (follows) has none. */
export const pathStates = ['C', 'P', 'K', 'X', 'U', 'W'] as const;
export type PathState = (typeof pathStates)[number];

export type ConflictKind =
  | 'text'
  | 'record'
  | 'binary'
  | 'type'
  | 'metadata'
  | 'deleted'
  | 'added'
  | 'no-ancestor'
  | 'undone';

export type EventKind =
  | 'copy-up'
  | 'whiteout'
  | 'added'
  | 'adopted'
  | 'merged'
  | 'dropped'
  | 'kept'
  | 'pending'
  | 'conflict'
  | 'withdrawn'
  | 'resolved'
  | 'undone'
  | 'pin-lifted'
  | 'epoch'
  | 'unaccepted'
  | 'accepted'
  | 'hold'
  | 'release'
  | 'rebuilt'
  | 'damaged'
  | 'failed'
  // Of the base alone; these are told, and not kept.
  | 'base-added'
  | 'base-changed'
  | 'base-replaced'
  | 'base-removed'
  | 'base-lost';

/** One object as it once was. Its content lies among the ancestors under `content`. */
export interface VersionRef {
  /** 32 hexadecimal digits; null: no content (directory, symlink, device), or it was not kept. */
  content: string | null;
  /** st_mode, the type included. */
  mode: number;
  uid: number;
  gid: number;
  size: number;
  /** Milliseconds. */
  mtime: number;
  /** Target of a symlink. */
  target: string | null;
  /** Name and base64 of each. */
  xattrs: [string, string][];
  /** base64 of the origin xattr that it carried. */
  origin?: string;
  /** It had no content of its own, but followed the base's. */
  metadataOnly?: true;
  /** Of a device. */
  rdev?: [major: number, minor: number];
}

/** null: absent; 'unknown': there was one, and nothing is known of it. */
export type SideRef = VersionRef | null | 'unknown';

export interface PathRecord {
  path: string;
  state: PathState;
  /** One sentence: why it is pending, kept …; else ''. */
  detail: string;
  /** Of the base at origin; null: only its hash is known (rebuilt from the origin). */
  fingerprint: Fingerprint | null;
  /** Hash of the base's fingerprint that was looked at last; '' for none. */
  baseSeen: string;
  /** What the overlay's object was when it was looked at; the caller's to define. */
  overlaySig: string;
  /** Times of merges within the hour, milliseconds: each doubles the settling time. */
  lastMerges: number[];
  /** Last event of the path, 0 for none. */
  lastSeq: number;
  /** Hashes among the ancestors that this path needs: content at origin, pin, xattrs. */
  needs: string[];
}

export interface Pin {
  /** 32 hexadecimal digits. */
  fingerprint: string;
  /** 32 hexadecimal digits, or '' when unknown. */
  content: string;
}

/** What an undo has to know of the event that it takes back. */
export interface UndoInfo {
  /** Version of the path that the overlay had; null: the overlay had none. */
  version: number | null;
  /** base64 of the origin xattr of before; null: none. */
  origin: string | null;
  /** Signature of the overlay's object as the event left it, '' for none: another one means an edit since. */
  after: string;
  /** Base version that is refused by the undo. */
  pin: Pin | null;
  /** Conflict that the event closed, and the undo opens again. */
  conflict: number | null;
}

/** Numbers of versions of the path, kept by an event. */
export interface KeptSides {
  ancestor: number | null;
  overlay: number | null;
  base: number | null;
}

export interface StoredEvent {
  seq: number;
  epoch: number;
  /** Milliseconds. */
  time: number;
  kind: EventKind;
  path: string;
  detail: string;
  conflict: number | null;
  version: number | null;
  sides: KeptSides | null;
  undo: UndoInfo | null;
  /** Sequence number of the event that took this one back; 0: it stands. */
  undone: number;
  /** Of a directory that was renamed: the path that it had. Two changed places: an event at each. */
  from?: string;
}

export interface NewEvent {
  kind: EventKind;
  path: string;
  detail?: string;
  conflict?: number | null;
  version?: number | null;
  sides?: KeptSides | null;
  undo?: UndoInfo | null;
  time?: number;
  from?: string;
}

export interface Closing {
  how: 'resolved' | 'withdrawn' | 'reconciled' | 'removed' | 'undone';
  /** The side that was taken, 'content' for one that was sent along, '' where nothing was taken. */
  take: string;
  rev: number;
  at: number;
  /** The event that says so. */
  seq: number;
}

export interface ConflictRecord {
  id: number;
  rev: number;
  kind: ConflictKind;
  path: string;
  since: number;
  reason: string;
  ancestor: SideRef;
  overlay: SideRef;
  base: SideRef;
  merged: { content: string; markers: boolean; size: number } | null;
  /** The origin that the path had when the conflict was found. */
  origin: Origin | null;
  /** Hash of the fingerprint of the base shown at this rev; '' where the base has none. */
  baseFingerprint: string;
  closed: Closing | null;
}

export interface BaseRecord {
  /** 32 hexadecimal digits. */
  identity: string;
  osId: string;
  osVersion: string;
  rootIno: number;
}

export interface StoreCheckItem {
  severity: 'damage' | 'warning';
  code: string;
  path: string;
  message: string;
}
