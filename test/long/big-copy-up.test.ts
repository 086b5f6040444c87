// A copy-up of 2 GiB, and its fsync, keep nobody else from being answered.
import { copyUpInStorm, withBigFile } from '../lib/big-file.ts';
import { mountTest } from '../lib/needs.ts';

mountTest(
  'a client is answered while another one copies up, writes to and syncs a file of 2 GiB',
  () => withBigFile({ agents: 2, sizeMiB: 2048 }, copyUpInStorm),
  { timeout: 600_000 },
);
