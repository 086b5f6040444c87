// The decision table: what becomes of a copy whose base has moved (versioning.md, "States of a path", the rows
// "looked at"; merge-facts.md, Policy). One pure function of facts; the caller gathers them, and does what it says.
// What costs (hashes, attributes, the line merge itself) is asked for last and only where it decides.
import { S_IFDIR, S_IFLNK, S_IFREG, S_IFSOCK } from '../lib/stat.ts';
import {
  type ConflictKind,
  hasContent,
  type Side,
  sameBody,
  sameMetadata,
  sameSide,
  type XattrSides,
} from './facts.ts';
import { type ContentFrom, type MergedMetadata, mergeMetadata } from './metadata.ts';
import type { Policy, SetKind } from './policy.ts';

/** What the line merge of the three contents gives. check-failed: clean, but not of its type (checks.ts). */
export type TextOutcome = 'clean' | 'conflict' | 'binary' | 'too-large' | 'no-ancestor' | 'check-failed';

export interface Conditions {
  baseState: 'accepted' | 'unaccepted' | 'held';
  settled: boolean;
  /** Somebody in the guest has it open for writing or mapped so. */
  writer: boolean;
  /** The other members of its set can be reconciled too; true where it has none. */
  setReady: boolean;
  overlayWritable: 'yes' | 'full' | 'read-only';
  /** A directory above it in the overlay is opaque: without the copy the name would be gone. */
  underOpaque: boolean;
  /** Somebody in the guest holds a lock on it. */
  locked: boolean;
}

export interface DirectoryFacts {
  opaque: boolean;
  /** The guest has renamed it: it carries a redirect. */
  renamed: boolean;
  /** No entries in the overlay, whiteouts counted. */
  empty: boolean;
  /** If the base's object is a symlink: whether it leads to a directory of the union. */
  baseLink: 'directory' | 'other' | null;
}

export interface Look {
  path: string;
  policy: Policy;
  /** null: there was none, or nothing is known of it; its content null: only the metadata are known. */
  ancestor: Side | null;
  /** Without ancestor: the guest's own name that the base added too, or an origin that is lost or foreign. */
  kindIfUnknown: 'added' | 'no-ancestor';
  overlay: Side;
  /** null: absent. */
  base: Side | null;
  /** Something was undone here: is the base still at the version that was refused? */
  pinned: 'at-pin' | 'past-pin' | null;
  conditions: Conditions;
  /** The overlay's has no content of its own and shows the base's (metacopy). */
  metadataOnly: boolean;
  /** Of an overlay directory, else null. */
  directory: DirectoryFacts | null;
  /** The ancestor's bytes are at hand. Only looked at for a metacopy whose base is gone. */
  ancestorBytes: boolean;
  /** Only called where a side has attributes. */
  xattrs: () => XattrSides;
  /** Only called for regular files that both sides changed, or whose ancestor is unknown. */
  text: () => TextOutcome;
}

export type PendingReason =
  | 'held'
  | 'unaccepted'
  | 'settling'
  | 'writer'
  | 'set'
  | 'full'
  | 'read-only'
  /** A content that decides is null: hash it and look again. */
  | 'hashing';

export type KeptReason = 'ignored' | 'scope' | 'deleted' | 'generated';

export type Decision =
  /** The base is what the ancestor was: not stale. Its fingerprint may differ; then the origin's is renewed. */
  | { do: 'current' }
  /** The base is at the version that was refused. */
  | { do: 'pinned' }
  | { do: 'pending'; reason: PendingReason }
  /** `regenerate`: a command to name. `fill`: a metacopy without a base, to be filled with the ancestor's bytes. */
  | { do: 'kept'; reason: KeptReason; detail: string; regenerate: string | null; fill: boolean }
  /** Remove the copy; its version is kept. `gone`: the base has no such name, so it is gone from the union. */
  | { do: 'drop'; gone: boolean }
  /** The ancestor was unknown and the contents are equal: the base's is the origin from now on. */
  | { do: 'adopt'; metadata: MergedMetadata }
  /** The copy gets the base's content (contentSame: it has it already) and these metadata; origin = base. */
  | {
      do: 'take-base';
      as: 'copy' | 'metadata-only';
      contentSame: boolean;
      metadata: MergedMetadata;
      regenerate: string | null;
    }
  /** The copy gets the result of the line merge; origin = base. */
  | { do: 'merge-text'; metadata: MergedMetadata }
  /** The content stays, these metadata are written if they are a change; origin = base. */
  | { do: 'metadata'; metadata: MergedMetadata }
  /** An overlay directory where the base has a symlink to a directory (entries move to the target where names are
   *  free), or a file (all go to displaced/). The base's object is shown; what was displaced is a conflict `type`. */
  | { do: 'displace'; into: 'target' | 'nowhere' }
  /** The overlay's stays as it is. Proposal: what can be offered as "merged". */
  | { do: 'conflict'; kind: ConflictKind; reason: string; proposal: 'none' | 'marked' | 'clean' };

/** Both sides are known, and the base has one. */
interface Present extends Look {
  base: Side;
}

export function decide(look: Look): Decision {
  const { conditions, ancestor, base } = look;
  if (conditions.baseState !== 'accepted') return pending(conditions.baseState);
  if (look.pinned === 'at-pin') return { do: 'pinned' };
  // The guest's own name, of which the base knows nothing.
  if (base === null && ancestor === null && look.kindIfUnknown === 'added') return { do: 'current' };
  if (conditions.settled && ancestor !== null && base !== null && sameSide(ancestor, base)) {
    return { do: 'current' };
  }
  if (conditions.overlayWritable !== 'yes') return pending(conditions.overlayWritable);
  const decision = base === null ? decideAbsent(look) : decidePresent({ ...look, base });
  return writes(decision) && !conditions.setReady ? pending('set') : decision;
}

/** Changes bytes or metadata of the overlay's object, or removes it. */
export function writes(decision: Decision): boolean {
  return ['drop', 'take-base', 'merge-text', 'metadata', 'displace'].includes(decision.do);
}

/** What no condition can change, cheapest first; then the conditions; then the contents. */
function decidePresent(look: Present): Decision {
  const { policy, conditions, base, overlay, ancestor } = look;
  const displaced = displace(look);
  if (displaced !== null) return conditions.settled ? displaced : pending('settling');
  // Without a file beneath it a metacopy has no content, and a chmod alone is not worth a conflict.
  if (look.metadataOnly && base.type !== S_IFREG && look.pinned === null) {
    return conditions.settled ? { do: 'drop', gone: false } : pending('settling');
  }
  const contentAlone = look.metadataOnly && ancestor !== null && sameMetadata(ancestor, base);
  const follows = contentAlone || followsAsDirectory(look);
  if (!follows && policy.ignored !== null) return kept(look, 'ignored', policy.ignored);
  if (!follows && !policy.inScope) return outOfScope(look);
  if (look.pinned === 'past-pin') return undone(look);
  // It shows the base's content in any case, so there is nothing to wait for.
  if (contentAlone) return metadataMerge(look, 'base');
  const waiting = waitFor(look);
  if (waiting !== null) return waiting;
  if (ancestor === null || (hasContent(ancestor) && ancestor.content === null)) return decideUnknown(look);
  const moved = !sameBody(ancestor, base);
  const touched = !look.metadataOnly && !sameBody(ancestor, overlay);
  const equal = look.metadataOnly ? base.type === S_IFREG : sameBody(overlay, base);
  if (!moved) return metadataMerge(look, touched ? 'overlay' : 'both');
  if (!touched || equal) {
    return follow(look, ancestor, equal && !look.metadataOnly ? 'both' : 'base');
  }
  return bothChanged(look, ancestor);
}

function pending(reason: PendingReason): Decision {
  return { do: 'pending', reason };
}

function kept(look: Look, reason: KeptReason, detail: string, fill = false): Decision {
  return { do: 'kept', reason, detail, regenerate: look.policy.generated, fill };
}

function conflict(
  kind: ConflictKind,
  reason: string,
  proposal: 'none' | 'marked' | 'clean' = 'none',
): Decision {
  return { do: 'conflict', kind, reason, proposal };
}

function undone(look: Look): Decision {
  if (!look.conditions.settled) return pending('settling');
  const { overlay, base, policy } = look;
  const lines = overlay.type === S_IFREG && base?.type === S_IFREG && policy.lines && !policy.record;
  const reason = 'what was undone here has been changed again by the base';
  return conflict('undone', reason, lines ? 'marked' : 'none');
}

/** Base not still, a writer, or a hash that is missing. */
function waitFor(look: Look): Decision | null {
  if (!look.conditions.settled) return pending('settling');
  if (look.conditions.writer) return pending('writer');
  const { overlay, base } = look;
  const unknown = (side: Side) => hasContent(side) && side.content === null;
  // A type of its own is a difference without any hash.
  if (look.ancestor === null && base !== null && base.type !== overlay.type) return null;
  if (base !== null && unknown(base) && !look.metadataOnly) return pending('hashing');
  return unknown(overlay) && !look.metadataOnly ? pending('hashing') : null;
}

/**
 * An overlay directory that is not opaque is no change in itself, so it hides nothing that the base has made of
 * its own: with a /lib that became a symlink, "overlay wins" is a guest without ld.so. Any scope.
 */
function displace(look: Present): Decision | null {
  const { directory, overlay, base, ancestor } = look;
  if (look.pinned !== null) return null;
  if (overlay.type !== S_IFDIR || base.type === S_IFDIR || directory === null || directory.opaque)
    return null;
  if (ancestor === null ? look.kindIfUnknown === 'added' : ancestor.type !== S_IFDIR) return null;
  if (base.type === S_IFLNK && directory.baseLink === 'directory') return { do: 'displace', into: 'target' };
  return base.type === S_IFREG ? { do: 'displace', into: 'nowhere' } : null;
}

/** A directory whose metadata nobody in the guest has changed has those of the base, in any scope. */
function followsAsDirectory(look: Present): boolean {
  return look.base.type === S_IFDIR && isUnchangedDirectory(look);
}

/** It was brought up for what lies in it, and is no change in itself. */
function isUnchangedDirectory({ directory, overlay, ancestor }: Look): boolean {
  if (directory === null || directory.opaque || ancestor === null) return false;
  return overlay.type === S_IFDIR && sameSide(ancestor, overlay);
}

/** Nothing is written here, but what equals the base is not stale: its origin is the base's from now on. */
function outOfScope(look: Present): Decision {
  const { ancestor, overlay, base, conditions } = look;
  const known = ancestor !== null;
  const equal = known ? sameSide(overlay, base) : sameBody(overlay, base);
  const keep = kept(look, 'scope', 'outside of what is merged in an OS tree');
  if (look.metadataOnly || (known && !(equal && conditions.settled && !conditions.writer))) return keep;
  const waiting = waitFor(look);
  if (waiting !== null) return waiting;
  if (!equal) return keep;
  const metadata = mergeMetadata(null, overlay, base, 'both', look.xattrs);
  return 'conflict' in metadata ? keep : { do: 'adopt', metadata };
}

/** The base has no such name (any more). */
function decideAbsent(look: Look): Decision {
  const { ancestor, overlay, policy, directory } = look;
  const untouched =
    ancestor !== null && (look.metadataOnly ? sameMetadata(ancestor, overlay) : sameSide(ancestor, overlay));
  if (look.metadataOnly && !untouched && look.pinned === null) return bereft(look);
  const left = leftDirectory(look);
  if (left !== null) return left;
  if (policy.ignored !== null) return bereftOr(look, kept(look, 'ignored', policy.ignored));
  if (!policy.inScope) {
    return bereftOr(
      look,
      kept(look, 'scope', 'deleted by the base, outside of what is merged in an OS tree'),
    );
  }
  if (look.pinned === 'past-pin') return undone(look);
  const waiting = waitFor(look);
  if (waiting !== null) return waiting;
  if (untouched && droppable(look) && directory === null) return { do: 'drop', gone: true };
  return kept(look, 'deleted', 'deleted by the base, changed here');
}

/** One that is no change goes with the base's, in any scope, once nothing of the guest's is in it. */
function leftDirectory(look: Look): Decision | null {
  const { directory, conditions, pinned } = look;
  if (directory === null || directory.renamed || conditions.underOpaque || pinned !== null) return null;
  if (!isUnchangedDirectory(look)) return null;
  const waiting = waitFor(look);
  if (waiting !== null) return waiting;
  if (directory.empty && droppable(look)) return { do: 'drop', gone: true };
  return kept(look, 'deleted', 'deleted by the base, and not empty here');
}

/** A metacopy whose base is gone has no content left but its ancestor's. */
function bereft(look: Look): Decision {
  if (!look.conditions.settled) return pending('settling');
  if (!look.ancestorBytes) return { do: 'drop', gone: true };
  return kept(look, 'deleted', 'deleted by the base, its metadata changed here', true);
}

function bereftOr(look: Look, decision: Decision): Decision {
  return look.metadataOnly && look.pinned === null ? bereft(look) : decision;
}

/** Conditions of Dropping that do not depend on the base. An empty file, a lock or a socket says something by
 *  being there; a generated file of the guest's cannot be replaced by the base's unseen. */
function droppable(look: Look): boolean {
  const { overlay, conditions, policy } = look;
  const empty = overlay.type === S_IFREG && overlay.size === 0 && !look.metadataOnly;
  return !empty && !conditions.locked && overlay.type !== S_IFSOCK && policy.generated === null;
}

function metadataMerge(look: Present, from: ContentFrom): Decision {
  const metadata = mergeMetadata(look.ancestor, look.overlay, look.base, from, look.xattrs);
  return 'conflict' in metadata ? metadataConflict(metadata.conflict) : { do: 'metadata', metadata };
}

function metadataConflict(fields: string): Decision {
  return conflict('metadata', `changed by both sides: ${fields}`);
}

/** The content is the base's to say: the guest has not changed it, or to the same. */
function follow(look: Present, ancestor: Side, from: ContentFrom): Decision {
  const { overlay, base, conditions, policy, directory } = look;
  const retyped = ancestor.type !== base.type;
  if (retyped && overlay.type === S_IFDIR && (directory === null || directory.opaque || !directory.empty)) {
    return conflict('type', 'the base made it another type, here it is a directory with entries');
  }
  // Permissions of a file say nothing of a symlink's: across types only an untouched copy can follow.
  if (retyped && from === 'base' && !sameMetadata(ancestor, overlay)) {
    return conflict('type', 'the base made it another type, its metadata were changed here');
  }
  if (retyped && base.type === S_IFDIR && conditions.underOpaque) {
    return conflict('type', 'the base made it a directory, beneath a directory that hides the base here');
  }
  const origin = retyped && from === 'both' ? null : ancestor;
  const metadata = mergeMetadata(origin, overlay, base, from, look.xattrs);
  if ('conflict' in metadata) return metadataConflict(metadata.conflict);
  const only = droppable(look) && !conditions.underOpaque;
  if (only && metadata.equalsBase) return { do: 'drop', gone: false };
  const as = only && overlay.type === S_IFREG && base.type === S_IFREG ? 'metadata-only' : 'copy';
  if (look.metadataOnly && as === 'metadata-only') return { do: 'metadata', metadata };
  return {
    do: 'take-base',
    as,
    contentSame: from === 'both',
    metadata,
    regenerate: policy.generated,
  };
}

function bothChanged(look: Present, ancestor: Side): Decision {
  const { overlay, base, policy } = look;
  if (ancestor.type !== overlay.type || ancestor.type !== base.type) {
    return conflict('type', 'one side changed it, the other made it another type');
  }
  if (policy.generated !== null) return kept(look, 'generated', 'generated on both sides');
  // Its target is text, but of one line: there is nothing to merge.
  if (overlay.type === S_IFLNK) return conflict('text', 'both sides changed the target of the symlink');
  if (overlay.type !== S_IFREG) return conflict('type', 'both sides made it another device');
  if (policy.record) return conflict('record', 'both sides changed its records');
  if (!policy.lines) return conflict('binary', 'both sides changed it, and it is not merged by lines');
  return textMerge(look);
}

function textMerge(look: Present): Decision {
  const outcome = look.text();
  switch (outcome) {
    case 'clean': {
      const metadata = mergeMetadata(look.ancestor, look.overlay, look.base, 'merged', look.xattrs);
      if ('conflict' in metadata)
        return conflict('metadata', `changed by both sides: ${metadata.conflict}`, 'clean');
      return { do: 'merge-text', metadata };
    }
    case 'conflict':
      return conflict('text', 'both sides changed the same lines', 'marked');
    case 'check-failed':
      return conflict('text', 'merged by lines it would not be valid any more', 'clean');
    case 'binary':
      return conflict('binary', 'both sides changed it, and it is binary');
    case 'too-large':
      return conflict('text', 'both sides changed it, and it is too large to merge');
    case 'no-ancestor':
      return conflict('no-ancestor', 'the bytes of the ancestor are gone', 'marked');
  }
}

/** Nothing is known of the ancestor's content: equal is adopted, different is for a person. */
function decideUnknown(look: Present): Decision {
  const { ancestor, overlay, base, policy } = look;
  if (look.metadataOnly || sameBody(overlay, base)) {
    // Whether the content has moved under a metacopy nobody can tell, so its set-id bits may have been another's.
    const from = look.metadataOnly && ancestor !== null ? 'base' : 'both';
    const metadata = mergeMetadata(ancestor, overlay, base, from, look.xattrs);
    return 'conflict' in metadata ? metadataConflict(metadata.conflict) : { do: 'adopt', metadata };
  }
  if (overlay.type !== base.type) return conflict('type', 'of different types, and no ancestor is known');
  if (policy.generated !== null) return kept(look, 'generated', 'generated on both sides');
  const kind = ancestor === null ? look.kindIfUnknown : 'no-ancestor';
  const reason = kind === 'added' ? 'added on both sides, different' : 'different, and no ancestor is known';
  const lines = overlay.type === S_IFREG && policy.lines && !policy.record;
  const offered = lines && !['binary', 'too-large'].includes(look.text());
  return conflict(kind, reason, offered ? 'marked' : 'none');
}

/**
 * The members of a set, wholly or not at all: while one is pending, in conflict or pinned, none is written. Of a
 * database that both sides changed no part is written either, whichever file holds the change (its .db alone equals
 * the ancestor while the changes lie in the -wal). `guestRemoved`: the guest has a whiteout for a member.
 */
export function decideSet(kind: SetKind, looks: readonly Look[], guestRemoved = false): Decision[] {
  const alone = looks.map((look) => decide({ ...look, conditions: { ...look.conditions, setReady: true } }));
  const torn =
    kind === 'database' &&
    (guestRemoved || looks.some(guestChanged)) &&
    looks.some(baseChanged) &&
    !looks.every(equalNow);
  const whole = alone.map((decision) => {
    if (!torn || !['drop', 'take-base', 'merge-text'].includes(decision.do)) return decision;
    return conflict('binary', 'both sides changed this database');
  });
  const blocked = whole.some((decision) => ['pending', 'conflict', 'pinned'].includes(decision.do));
  return blocked ? whole.map((decision) => (writes(decision) ? pending('set') : decision)) : whole;
}

function guestChanged(look: Look): boolean {
  // An empty -wal or -journal holds no change, and a -shm is made anew by whoever opens the database.
  if (look.path.endsWith('-shm') || look.metadataOnly) return false;
  if (look.ancestor === null) return look.overlay.size > 0;
  return !sameBody(look.ancestor, look.overlay);
}

function baseChanged(look: Look): boolean {
  if (look.ancestor === null || look.base === null) return look.ancestor !== null || look.base !== null;
  return !sameBody(look.ancestor, look.base);
}

function equalNow(look: Look): boolean {
  return look.base !== null && sameBody(look.overlay, look.base);
}
