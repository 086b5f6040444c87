// A request that is answered later: its message in a buffer of its own, and when it came.
import type { FuseRequest } from './request.ts';

export interface Parked {
  readonly opcode: number;
  readonly nodeId: number;
  readonly uid: number;
  readonly gid: number;
  readonly pid: number;
  readonly length: number;
  readonly message: Buffer;
  readonly view: DataView;
  /** performance.now() when it was read first. */
  readonly started: number;
  /** Not answered yet. The server's to change. */
  open: boolean;
}

/** Copies what there is of the message, not the room that a larger one would take. */
export function newParked(r: FuseRequest, started: number): Parked {
  const message = Buffer.allocUnsafeSlow(r.length);
  r.buffer.copy(message, 0, 0, r.length);
  const { opcode, nodeId, uid, gid, pid, length } = r;
  return { opcode, nodeId, uid, gid, pid, length, message, view: viewOf(message), started, open: true };
}

/** Is it the request of that unique number? */
export function hasUnique(parked: Parked, low: number, high: number): boolean {
  return parked.view.getUint32(8, true) === low && parked.view.getUint32(12, true) === high;
}

export function viewOf(buffer: Buffer): DataView {
  return new DataView(buffer.buffer, buffer.byteOffset, buffer.length);
}
