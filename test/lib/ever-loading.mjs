// For `node --import`: each thread but the first calls koffi for ever, as if it never came to an end of loading.
import { isMainThread } from 'node:worker_threads';
import koffi from 'koffi';

if (!isMainThread) {
  const libc = koffi.load(null);
  for (;;) libc.func('getpid', 'int', []);
}
