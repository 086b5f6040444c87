// In each test file: nothing stays mounted, whatever became of the test. And who opens a file in a mount waits for its
// merge as long as that takes: on a machine that is slow enough any limit is met.
import { afterAll } from 'vitest';
import { cleanUpAll } from './lib/cleanup.ts';

process.env.KASANE_LOOK_LIMIT_MS = '60000';
// A bash that finds itself the first one, and its input a socket, takes that for a login over the network, and reads
// the host's files for it.
process.env.SHLVL = '2';

afterAll(cleanUpAll);
