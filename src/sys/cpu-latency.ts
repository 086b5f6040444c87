// PM QoS of the processors: who holds /dev/cpu_dma_latency open has a say in how deeply an idle one may sleep
// (Documentation/power/pm_qos_interface.rst). The kernel takes the least of all that is asked for, and forgets ours
// with the descriptor.
import { AT_FDCWD, O_WRONLY } from './constants.ts';
import { openat, write } from './file.ts';

export const CPU_LATENCY = '/dev/cpu_dma_latency';
/** PM_QOS_CPU_LATENCY_DEFAULT_VALUE: anything will do. */
const NO_MATTER = 2_000_000_000;

/** A descriptor that asks for nothing yet, or a negative errno: EACCES, ENOENT. */
export function openCpuLatency(): number {
  return openat(AT_FDCWD, CPU_LATENCY, O_WRONLY);
}

const none = Buffer.from(Int32Array.of(0).buffer);
const noMatter = Buffer.from(Int32Array.of(NO_MATTER).buffer);

/** `awake`: idle processors are to poll, not to sleep. 0 or a negative errno. */
export function keepAwake(fd: number, awake: boolean): number {
  return Math.min(0, write(fd, awake ? none : noMatter, 0, 4));
}
