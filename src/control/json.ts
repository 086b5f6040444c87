// What the user sees as JSON, from `--json` and from the control directory alike. Keys are only ever added.
// Paths are escaped (bytes outside printable UTF-8 as \xNN, then also in base64), times ISO 8601 in UTC.
import { escapeName } from '../lib/names.ts';
import type {
  CheckItem,
  Conflict,
  ConflictDetail,
  EventRecord,
  LogEntry,
  ReconcileReport,
  ResolveReport,
  SideInfo,
  StatusReport,
  UndoReport,
} from './verbs.ts';

export type Json = null | boolean | number | string | Json[] | { [key: string]: Json };
export type JsonObject = { [key: string]: Json };

/** `path`, and `pathBytes` where the escaped form differs from the bytes. */
export function pathJson(path: string): JsonObject {
  const text = escapeName(path);
  return text === Buffer.from(path, 'latin1').toString('utf8')
    ? { path: text }
    : { path: text, pathBytes: Buffer.from(path, 'latin1').toString('base64') };
}

export function timeText(milliseconds: number): string {
  return new Date(milliseconds).toISOString();
}

export function conflictJson(conflict: Conflict): JsonObject {
  return {
    id: conflict.id,
    rev: conflict.rev,
    kind: conflict.kind,
    ...pathJson(conflict.path),
    since: timeText(conflict.since),
  };
}

export function sideJson(side: SideInfo): JsonObject {
  if (side.type === 'absent' || side.type === 'unknown') return { type: side.type };
  return {
    type: side.type,
    mode: side.mode.toString(8).padStart(4, '0'),
    uid: side.uid,
    gid: side.gid,
    size: side.size,
    mtime: timeText(side.mtime),
    hash: side.hash,
    ...(side.target === null ? {} : { target: escapeName(side.target) }),
  };
}

export function conflictDetailJson(detail: ConflictDetail): JsonObject {
  return {
    ...conflictJson(detail),
    reason: detail.reason,
    ancestor: sideJson(detail.ancestor),
    overlay: sideJson(detail.overlay),
    base: sideJson(detail.base),
    merged: detail.merged === null ? null : { size: detail.merged.size, markers: detail.merged.markers },
  };
}

export function statusJson(status: StatusReport): JsonObject {
  return {
    version: status.version,
    mountPoint: escapeName(status.mountPoint),
    bases: status.bases.map(escapeName),
    overlay: escapeName(status.overlay),
    state: escapeName(status.state),
    mounted: status.pid !== 0,
    pid: status.pid,
    started: status.started === 0 ? null : timeText(status.started),
    epoch: status.epoch,
    base: status.base,
    coherence: status.coherence,
    bound: status.bound,
    watches: status.watches,
    watcher: status.watcher,
    watcherReason: status.watcherReason,
    readOnly: status.readOnly,
    copying: status.copying.map(({ path, done, size }) => ({ ...pathJson(path), done, size })),
    counts: { ...status.counts },
    bytes: { ...status.bytes },
    options: { ...status.options },
    overlayfsOptions: status.overlayfsOptions,
    notes: status.notes,
  };
}

export function eventJson(event: EventRecord): JsonObject {
  return {
    seq: event.seq,
    epoch: event.epoch,
    time: timeText(event.time),
    kind: event.kind,
    ...pathJson(event.path),
  };
}

export function logJson(entry: LogEntry): JsonObject {
  return {
    ...eventJson(entry),
    detail: entry.detail,
    conflict: entry.conflict,
    version: entry.version,
    undoable: entry.undoable,
  };
}

export function resolveJson(report: ResolveReport): Json {
  return report.resolved.map((one) => ({
    id: one.id,
    rev: one.rev,
    ...pathJson(one.path),
    already: one.already,
  }));
}

export function undoJson(report: UndoReport): JsonObject {
  return {
    seq: report.seq,
    kind: report.kind,
    ...pathJson(report.path),
    reopened: report.reopened,
    keptVersion: report.keptVersion,
    already: report.already,
  };
}

export function reconcileJson(report: ReconcileReport): JsonObject {
  const { conflicts, ...counts } = report;
  return { ...counts, conflicts: conflicts.map(conflictJson) };
}

export function checkJson(item: CheckItem): JsonObject {
  return { severity: item.severity, code: item.code, ...pathJson(item.path), message: item.message };
}

/** As it is written to files and terminals. */
export function jsonText(value: Json): string {
  return `${JSON.stringify(value, null, 2)}\n`;
}
