// The end of the process.
import { native } from './ffi.ts';

const cExit = native('_exit', 'int', ['int']);

/**
 * _exit(2): ends all threads, wherever they are. process.exit would end a worker that is still loading its modules in the
 * midst of a call of koffi's, which takes that for a mistake and aborts.
 */
export function exitNow(code: number): never {
  cExit(code);
  throw new TypeError('_exit has returned');
}
