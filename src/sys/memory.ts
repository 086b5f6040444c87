// Memory that malloc(3) has got back from its users, and keeps.
import { nativeIfThere } from './ffi.ts';

/** glibc's; musl gives pages back by itself. */
const cMallocTrim = nativeIfThere('malloc_trim', 'int', ['size_t']);

/** Gives the whole pages among it back to the kernel, of all threads. Takes a millisecond or two. */
export function trimMemory(): void {
  cMallocTrim?.(0);
}
