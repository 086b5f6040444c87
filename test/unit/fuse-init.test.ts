// Negotiation with kernels of all ages: what is not offered is not used, what is too old is refused.
import { describe, expect, test } from 'vitest';
import { type InitFlag, initFlags } from '../../src/fuse/constants.ts';
import { defaultWishes, type InitWishes, negotiate } from '../../src/fuse/init.ts';
import { E } from '../../src/lib/errno.ts';

const all = Object.keys(initFlags) as InitFlag[];
const everything: InitWishes = {
  locks: true,
  killPriv: true,
  exportSupport: true,
  readdirplus: 'auto',
  backingDepth: 2,
};

function words(names: readonly InitFlag[]): { flags: number; flags2: number } {
  let value = 0n;
  for (const name of names) value |= 1n << BigInt(initFlags[name]);
  return { flags: Number(value & 0xffffffffn), flags2: Number(value >> 32n) };
}

function offer(names: readonly InitFlag[], minor = 45) {
  return { major: 7, minor, maxReadahead: 131_072, ...words(names) };
}

const used = (uses: Record<InitFlag, boolean>) => all.filter((name) => uses[name]);

describe('negotiate', () => {
  test('a kernel that offers everything gets what is wanted, and nothing else', () => {
    const { out, negotiated } = negotiate(offer(all), defaultWishes);
    const wanted: InitFlag[] = [
      'ASYNC_READ',
      'ATOMIC_O_TRUNC',
      'BIG_WRITES',
      'DONT_MASK',
      'AUTO_INVAL_DATA',
      'PARALLEL_DIROPS',
      'POSIX_ACL',
      'ABORT_ERROR',
      'MAX_PAGES',
      'SETXATTR_EXT',
      'INIT_EXT',
      'CREATE_SUPP_GROUP',
      'DIRECT_IO_ALLOW_MMAP',
      'CACHE_SYMLINKS',
    ];
    expect(used(negotiated.uses).sort()).toEqual([...wanted].sort());
    expect(out).toMatchObject({ major: 7, minor: 45, ...words(wanted), timeGran: 1 });
    expect(out).toMatchObject({ maxWrite: 1 << 20, maxPages: 256, maxReadahead: 131_072, maxStackDepth: 0 });
    expect(out).toMatchObject({ maxBackground: 64, congestionThreshold: 48 });
    expect(negotiated.offers.HAS_EXPIRE_ONLY).toBe(true);
  });

  test('every wish adds its flag', () => {
    const { negotiated } = negotiate(offer(all), everything);
    for (const name of [
      'POSIX_LOCKS',
      'FLOCK_LOCKS',
      'HANDLE_KILLPRIV_V2',
      'EXPORT_SUPPORT',
      'DO_READDIRPLUS',
      'READDIRPLUS_AUTO',
      'PASSTHROUGH',
    ] as const) {
      expect(negotiated.uses[name], name).toBe(true);
    }
    const always = negotiate(offer(all), { ...everything, readdirplus: 'always' }).negotiated;
    expect([always.uses.DO_READDIRPLUS, always.uses.READDIRPLUS_AUTO]).toEqual([true, false]);
  });

  test('locks stay the kernel’s where nothing can be open past us', () => {
    const { out, negotiated } = negotiate(offer(all.filter((name) => name !== 'PASSTHROUGH')), everything);
    expect([negotiated.uses.POSIX_LOCKS, negotiated.uses.FLOCK_LOCKS]).toEqual([false, false]);
    expect(out.maxStackDepth).toBe(0);
    expect(negotiate(offer(all), everything).out.maxStackDepth).toBe(2);
  });

  test.each(all)('%s is not used where it is not offered', (name) => {
    const { out, negotiated } = negotiate(offer(all.filter((other) => other !== name)), everything);
    expect(negotiated.uses[name]).toBe(false);
    expect(negotiated.offers[name]).toBe(false);
    const bit = initFlags[name];
    expect(bit < 32 ? (out.flags >>> bit) & 1 : (out.flags2 >>> (bit - 32)) & 1).toBe(0);
  });

  test('without INIT_EXT the second word does not count', () => {
    const { out, negotiated } = negotiate(offer(all.filter((name) => name !== 'INIT_EXT')), everything);
    expect(out.flags2).toBe(0);
    expect(negotiated.offers.HAS_EXPIRE_ONLY).toBe(false);
  });

  test('without MAX_PAGES requests are as long as the kernel then makes them', () => {
    const { out, negotiated } = negotiate(offer([], 31), everything);
    expect(out).toMatchObject({ minor: 31, flags: 0, flags2: 0, maxPages: 0, maxWrite: 131_072 });
    expect(negotiated).toMatchObject({ kernelMinor: 31, minor: 31, maxWrite: 131_072 });
  });

  test('a newer minor is answered with ours', () => {
    const { out, negotiated } = negotiate(offer(all, 99), defaultWishes);
    expect(out.minor).toBe(45);
    expect(negotiated).toMatchObject({ kernelMinor: 99, minor: 45 });
  });

  test.each([
    [7, 30],
    [6, 45],
    [8, 0],
  ])('a kernel that speaks %i.%i is refused by name', (major, minor) => {
    const refused = () => negotiate({ ...offer(all, minor), major }, defaultWishes);
    expect(refused).toThrow(`FUSE ${major}.${minor}`);
    expect(refused).toThrow(expect.objectContaining({ errno: E.EPROTO }));
  });
});
