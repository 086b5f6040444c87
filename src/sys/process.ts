// What the kernel calls the calling thread.
import { SYS_GETTID } from './constants.ts';
import { systemCall } from './ffi.ts';

const cGettid = systemCall([]);

export function gettid(): number {
  return cGettid(SYS_GETTID);
}
