// What the user sees as text, from the command line and from the control directory alike: lines that awk
// and cut can take apart. Paths are escaped, so that a name holds neither tab nor newline.
import { escapeName } from '../lib/names.ts';
import { conflictDetailJson, timeText } from './json.ts';
import type { Conflict, ConflictDetail, EventRecord, StatusReport } from './verbs.ts';

/** id TAB kind TAB path */
export function conflictLine(conflict: Conflict): string {
  return `${conflict.id}\t${conflict.kind}\t${escapeName(conflict.path)}\n`;
}

/** seq epoch time kind path, blanks between; the path is last, for it may hold blanks. */
export function eventLine(event: EventRecord): string {
  return `${event.seq} ${event.epoch} ${timeText(event.time)} ${event.kind} ${escapeName(event.path)}\n`;
}

/** `key value` lines; numbers in bytes, times in UTC. For everyone: without names that may lie where only some may look. */
export function statusText(status: StatusReport, reader: 'owner' | 'everyone'): string {
  const lines: [string, string][] = [
    ['mount_point', escapeName(status.mountPoint)],
    ...status.bases.map((base): [string, string] => ['base', escapeName(base)]),
    ['overlay', escapeName(status.overlay)],
    ['state', escapeName(status.state)],
    ['version', status.version],
    ['pid', status.pid === 0 ? 'not mounted' : String(status.pid)],
    ['started', status.started === 0 ? '-' : timeText(status.started)],
    ['epoch', String(status.epoch)],
    ['base_state', status.base],
    ['coherence', status.coherence],
    ['bound_seconds', String(status.bound)],
    ['watches', String(status.watches)],
    ['watcher', status.watcher],
    ['watcher_reason', status.watcherReason],
    ['read_only', status.readOnly ? 'yes' : 'no'],
    ...status.copying.map(({ path, done, size }): [string, string] => [
      'copying',
      reader === 'owner' ? `${done} ${size} ${escapeName(path)}` : `${done} ${size}`,
    ]),
  ];
  const underscored = (name: string) => name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
  for (const [name, value] of Object.entries(status.counts)) lines.push([underscored(name), String(value)]);
  for (const [name, value] of Object.entries(status.bytes)) lines.push([`bytes_${name}`, String(value)]);
  for (const [name, value] of Object.entries(status.options))
    lines.push([`option_${name}`, escapeName(value)]);
  lines.push(['overlayfs_options', status.overlayfsOptions]);
  for (const note of status.notes) lines.push(['note', note]);
  return lines.map(([key, value]) => `${key} ${value}\n`).join('');
}

/** `info` of a conflict: `key value` lines, keys of a side joined by an underscore. */
export function conflictInfo(detail: ConflictDetail): string {
  let out = '';
  for (const [key, value] of Object.entries(conflictDetailJson(detail))) {
    if (value !== null && typeof value === 'object' && !Array.isArray(value)) {
      for (const [inner, what] of Object.entries(value)) out += `${key}_${inner} ${String(what ?? '-')}\n`;
    } else {
      out += `${key} ${String(value ?? '-')}\n`;
    }
  }
  return out;
}
