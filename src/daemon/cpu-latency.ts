// Whether idle processors are kept awake while requests follow each other closely (fuse/awake.ts).
import * as os from 'node:os';
import type { MountOptions } from '../control/mount-options.ts';
import { readIfThere } from '../versions/files.ts';

const DRIVER = '/sys/devices/system/cpu/cpuidle/current_driver';
/** All of the machine that are idle poll, not the one alone that the client runs on: beyond so many that is out of proportion. */
const MOST_PROCESSORS = 8;

export interface Processors {
  /** Of the machine. */
  count: number;
  /** Of these, how many we may run on. */
  ours: number;
  /** Name of the driver that puts idle ones to sleep; '': there is none, and nothing that could be asked. */
  driver: string;
}

/**
 * By itself only in virtual machines (driver haltpoll), where to halt is a way through the hypervisor and back. With one
 * processor none is idle while one waits for the other.
 */
export function keepsAwake(
  { cpuLatency, transport }: Pick<MountOptions, 'cpuLatency' | 'transport'>,
  { count, ours, driver }: Processors = processors(),
): boolean {
  if (transport !== 'direct') return false;
  if (cpuLatency !== 'auto') return cpuLatency === 'low';
  return driver === 'haltpoll' && ours > 1 && count <= MOST_PROCESSORS;
}

function processors(): Processors {
  return {
    count: os.cpus().length,
    ours: os.availableParallelism(),
    driver: readIfThere(DRIVER)?.toString('latin1').trim() ?? '',
  };
}
