// From what lies at a path to a decision: gathers the facts for merge/decide.ts, cheap ones first; contents are
// read and merged only where the table asks for them.
import { isDirectory } from '../lib/stat.ts';
import { checkMerged } from '../merge/checks.ts';
import { type Conditions, type Decision, decide, type Look, type TextOutcome } from '../merge/decide.ts';
import { mergeText, type TextMerge } from '../merge/index.ts';
import { looksBinary, MAX_TEXT, mergeable, policyOf } from '../merge/policy.ts';
import type { Store } from '../versions/store.ts';
import { directoryFacts } from './left-dirs.ts';
import { isLong, type MergeThread } from './merge-thread.ts';
import type { MergeInput } from './merge-worker.ts';
import { isRacy } from './origin-list.ts';
import {
  ancestorSide,
  type BaseSide,
  type Branches,
  fillContent,
  isMetadataOnly,
  meantBy,
  type OverlaySide,
  openBase,
  openOverlayFile,
  readBase,
  readOverlay,
  sideOf,
  sizeOf,
} from './sides.ts';
import { decodeXattrs, type XattrSet } from './xattr-set.ts';

/** All that is known of a path at one moment. */
export interface View {
  path: string;
  basePath: string;
  overlay: OverlaySide;
  base: BaseSide;
  /** Hash of the content at origin; null: not known. */
  ancestorContent: string | null;
  /** The bytes at origin, where they are at hand and were asked for. */
  ancestorBytes: Buffer | null;
  ancestorXattrs: XattrSet | null;
  /** The merge of the three contents, once it has been made. */
  merge: TextMerge | null;
  /** Of a directory, for who only asks: what lies in it would have gone. */
  emptied: boolean;
}

export interface Assessed {
  view: View;
  look: Look;
  decision: Decision;
  /** The line merge, where one was made: bytes, perhaps with markers. */
  merged: { clean: boolean; bytes: Buffer } | null;
}

export interface AssessContext {
  branches: Branches;
  store: Store;
  osTree: boolean;
  /** The mount has ended: contents are not read to the end any more. */
  isOver(): boolean;
}

/** Reads what there is at a path. Throws FsError. */
export async function viewOf(context: AssessContext, path: string, basePath: string): Promise<View> {
  const overlay = readOverlay(context.branches, path, basePath);
  const base = readBase(context.branches, basePath);
  const { origin } = overlay;
  let ancestorContent: string | null = null;
  if (origin !== null) {
    ancestorContent =
      origin.content !== '' ? origin.content : context.store.hashes.contentOf(origin.fingerprint);
  }
  return {
    path,
    basePath,
    overlay,
    base,
    ancestorContent,
    ancestorBytes: null,
    ancestorXattrs: origin === null ? null : await xattrsAtOrigin(context.store, origin.xattrs),
    merge: null,
    emptied: false,
  };
}

async function xattrsAtOrigin(store: Store, hash: string): Promise<XattrSet | null> {
  if (hash === '') return new Map();
  const whole = store.ancestors.findByPrefix(hash);
  const bytes = whole === null ? null : await store.ancestors.get(whole);
  return bytes === null ? null : decodeXattrs(bytes);
}

/**
 * Reads and hashes both contents, and the ancestor's bytes where a line merge may want them. Throws FsError
 * (ESHUTDOWN: the mount has ended meanwhile).
 */
export async function loadContents(context: AssessContext, view: View): Promise<void> {
  const { overlay, base, path } = view;
  const { isOver } = context;
  view.merge = null;
  const keep = (size: number) => mergeable(path, context.osTree, size);
  const follows = isMetadataOnly(overlay.object);
  if (overlay.object !== null) {
    const { object } = overlay;
    await fillContent(object, () => openOverlayFile(context.branches, path), keep(sizeOf(object)), {
      isOver,
    });
  }
  // Whatever the base's is, it is the overlay's, too: what is large need not be read.
  if (base.object !== null && (!follows || base.object.stat.size <= MAX_TEXT)) {
    const { object } = base;
    await fillContent(object, () => openBase(context.branches, view.basePath), keep(object.stat.size), {
      isOver,
    });
    // Nobody has read it at the time, and it has not moved since.
    if (view.ancestorContent === null && overlay.origin?.fingerprint === base.fingerprint) {
      view.ancestorContent = object.content;
    }
  }
  if (view.ancestorContent !== null)
    view.ancestorBytes = await context.store.ancestors.get(view.ancestorContent);
}

const emptySet: XattrSet = new Map();

/** The origin says all of this version already, and was not taken in the very moment in which the base changed. */
export function isCurrent(view: View): boolean {
  const { origin } = view.overlay;
  const { object, fingerprint } = view.base;
  if (origin === null || object === null || origin.pin !== null || origin.torn) return false;
  if (origin.fingerprint !== fingerprint) return false;
  return isMetadataOnly(view.overlay.object) || !isRacy(object.stat, origin.taken);
}

/** The decision for a path that is stale. Throws FsError when a side cannot be read. */
export async function assess(
  context: AssessContext,
  view: View,
  conditions: Conditions,
  pinned: Look['pinned'],
  merger: MergeThread,
): Promise<Assessed> {
  const merged: { value: Assessed['merged'] } = { value: null };
  if (isMetadataOnly(view.overlay.object) && view.base.object === null) await loadContents(context, view);
  let look = lookOf(context, view, conditions, pinned, merged);
  // A member of a set is judged once more together with the others, by contents.
  const shortcut = look.policy.set === null && isCurrent(view);
  let decision: Decision = shortcut ? { do: 'current' } : decide(look);
  if (decision.do === 'pending' && decision.reason === 'hashing') {
    await loadContents(context, view);
    look = lookOf(context, view, conditions, pinned, merged);
    if (wantsMerge(look)) await mergeAhead(view, merger);
    decision = decide(look);
  }
  return { view, look, decision, merged: merged.value };
}

/** Whether the decision hangs on the merge of the texts. */
function wantsMerge(look: Look): boolean {
  let asked = false;
  const text = (): TextOutcome => {
    asked = true;
    return 'conflict';
  };
  decide({ ...look, text });
  return asked;
}

/** A long merge is made elsewhere, before it is asked for here. */
async function mergeAhead(view: View, merger: MergeThread): Promise<void> {
  const input = textsOf(view);
  if (typeof input !== 'string' && isLong(input)) view.merge = await merger.merge(input);
}

export function lookOf(
  context: AssessContext,
  view: View,
  conditions: Conditions,
  pinned: Look['pinned'],
  merged: { value: Assessed['merged'] },
): Look {
  const { overlay, base } = view;
  const object = overlay.object;
  if (object === null) throw new TypeError(`${view.path}: looked at without an object`);
  return {
    path: view.path,
    policy: policyOf(view.path, context.osTree),
    ancestor: ancestorSide(overlay.origin, view.ancestorContent),
    kindIfUnknown: overlay.foreignCopy ? 'no-ancestor' : 'added',
    overlay: meantBy(sideOf(object), overlay.origin, context.branches.standIn),
    base: base.object === null ? null : sideOf(base.object),
    pinned,
    conditions,
    metadataOnly: isMetadataOnly(object),
    directory: isDirectory(object.stat.mode) ? directoryFacts(context.branches, view) : null,
    ancestorBytes: view.ancestorBytes !== null,
    xattrs: () => ({
      ancestor: view.ancestorXattrs,
      overlay: object.xattrs,
      base: base.object?.xattrs ?? emptySet,
    }),
    text: () => textOutcome(view, merged),
  };
}

/** The three texts, or why there is nothing to merge. */
function textsOf(view: View): MergeInput | TextOutcome {
  const { overlay, base, ancestorBytes } = view;
  const o = overlay.object;
  const b = base.object;
  if (o === null || b === null) return 'no-ancestor';
  if (sizeOf(o) > MAX_TEXT || b.stat.size > MAX_TEXT) return 'too-large';
  if (o.bytes === null || b.bytes === null) return 'too-large';
  if (looksBinary(o.bytes) || looksBinary(b.bytes)) return 'binary';
  if (ancestorBytes === null) return 'no-ancestor';
  if (looksBinary(ancestorBytes)) return 'binary';
  return { ancestor: ancestorBytes, overlay: o.bytes, base: b.bytes };
}

function textOutcome(view: View, merged: { value: Assessed['merged'] }): TextOutcome {
  const texts = textsOf(view);
  if (typeof texts === 'string') return texts;
  view.merge ??= mergeText(texts.ancestor, texts.overlay, texts.base);
  const { conflict, out } = view.merge;
  merged.value = { clean: !conflict, bytes: out };
  if (conflict) return 'conflict';
  return checkMerged(view.path, out, [texts.overlay, texts.base]) === null ? 'clean' : 'check-failed';
}

/** What can be offered as "merged" in a conflict; null where there is nothing sensible. */
export function proposal(assessed: Assessed): { clean: boolean; bytes: Buffer } | null {
  const { decision, view, merged } = assessed;
  if (decision.do !== 'conflict' || decision.proposal === 'none') return null;
  if (merged !== null) return merged;
  const o = view.overlay.object?.bytes ?? null;
  const b = view.base.object?.bytes ?? null;
  if (o === null || b === null || looksBinary(o) || looksBinary(b)) return null;
  const { conflict, out } = mergeText(view.ancestorBytes ?? Buffer.alloc(0), o, b);
  return { clean: !conflict, bytes: out };
}
