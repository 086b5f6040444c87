// The control directory `/.kasane`, for the fuse-native transport: by path, as everything here.
import type { ControlEntry, ControlStat } from '../../control/tree.ts';
import type { Answer, Listing } from '../../fuse/native/handlers.ts';
import { entryWords, putStat } from '../../fuse/native/words.ts';
import { E } from '../../lib/errno.ts';
import { DT_DIR, DT_REG, O_ACCMODE, O_RDONLY } from '../../sys/constants.ts';
import { controlIno, controlStatOf } from '../control-stat.ts';
import type { ControlReply, ControlRequest } from '../front.ts';
import type { NativeFront } from './front.ts';

/** A negative errno, or what comes of the reply. */
function ask<T extends ControlReply>(
  front: NativeFront,
  request: ControlRequest,
  answer: (reply: T) => number,
): Promise<number> {
  return new Promise((resolve) => {
    front.askControl(request, (reply) => {
      resolve(typeof reply === 'number' && reply < 0 ? reply : answer(reply as T));
    });
  });
}

export function statControl(front: NativeFront, path: string, out: Uint32Array): Answer {
  return ask<ControlStat>(front, { op: 'stat', path }, (stat) =>
    putStat(out, controlStatOf(stat, front.owner), front.inodes.of(controlIno(stat.ino))),
  );
}

export function listControl(front: NativeFront, path: string, out: Listing): Answer {
  return ask<ControlEntry[]>(front, { op: 'list', path }, (entries) => {
    for (const { name, kind, ino } of entries) {
      out.names.push(name);
      out.entries.push(entryWords(front.inodes.of(controlIno(ino)), kind === 'dir' ? DT_DIR : DT_REG));
    }
    return 0;
  });
}

export function openControl(front: NativeFront, path: string, flags: number): Answer {
  if ((flags & O_ACCMODE) !== O_RDONLY && path !== 'control') return -E.EACCES;
  return ask<number>(front, { op: 'open', path }, (control) => front.files.add({ path, control }));
}

export function readControl(front: NativeFront, handle: number, into: Buffer, offset: number): Answer {
  return ask<Uint8Array>(front, { op: 'read', handle, offset, length: into.length }, (bytes) => {
    into.set(bytes);
    return bytes.length;
  });
}

export function writeControl(front: NativeFront, path: string, from: Buffer): Answer {
  return ask<number>(front, { op: 'write', path, bytes: Uint8Array.from(from) }, (count) => count);
}

export function closeControl(front: NativeFront, handle: number): 0 {
  front.askControl({ op: 'close', handle }, () => {});
  return 0;
}
