// The command's arguments as the bytes that were typed. Node decodes them as UTF-8 and loses what is none; the
// kernel still has them.
import * as fs from 'node:fs';
import { fromUtf8 } from '../lib/names.ts';

/** Arguments after the script's name, latin1. */
export function rawArguments(): string[] {
  const decoded = process.argv.slice(2);
  const raw = fs.readFileSync('/proc/self/cmdline', 'latin1').split('\0').slice(0, -1);
  const tail = decoded.length === 0 ? [] : raw.slice(-decoded.length);
  // Should anybody have given the process another title, the decoded ones are what there is.
  const same =
    tail.length === decoded.length &&
    tail.every((one, i) => Buffer.from(one, 'latin1').toString('utf8') === decoded[i]);
  return same ? tail : decoded.map(fromUtf8);
}
