// The layouts of the FUSE protocol: sizes against linux/fuse.h, round trips, and the hand-written hot path
// against the table.
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  devMajor,
  devMinor,
  encodeDev,
  writeAttrOut,
  writeCreateOut,
  writeEntryOut,
  writeNegativeEntry,
  writeOpenOut,
  writeStatxOut,
} from '../../src/fuse/attr.ts';
import { offsetOf, readers, sizeOf, writers } from '../../src/fuse/codec.ts';
import { addDirent, addDirentPlus } from '../../src/fuse/dirent.ts';
import { viewOf } from '../../src/fuse/parked.ts';
import { HEADER, opcodes, PAYLOAD, type StructName, structs } from '../../src/fuse/protocol.ts';
import {
  type FuseRequest,
  forEachForget,
  readName,
  readSetxattr,
  supplementaryGroups,
} from '../../src/fuse/request.ts';
import { newStat, type Stat } from '../../src/lib/stat.ts';

/** sizeof as the C compiler gives it for linux/fuse.h of Linux 6.18. */
const sizes: Record<StructName, number> = {
  in_header: 40,
  out_header: 16,
  attr: 88,
  statx: 256,
  entry_out: 128,
  attr_out: 104,
  statx_in: 24,
  statx_out: 288,
  forget_in: 8,
  forget_one: 16,
  batch_forget_in: 8,
  getattr_in: 16,
  setattr_in: 88,
  mknod_in: 16,
  mkdir_in: 8,
  rename_in: 8,
  rename2_in: 16,
  link_in: 8,
  open_in: 8,
  create_in: 16,
  open_out: 16,
  release_in: 24,
  flush_in: 24,
  read_in: 40,
  write_in: 40,
  write_out: 8,
  statfs_out: 80,
  fsync_in: 16,
  setxattr_in: 16,
  getxattr_in: 8,
  getxattr_out: 8,
  lk_in: 48,
  lk_out: 24,
  access_in: 8,
  init_in: 64,
  init_out: 64,
  interrupt_in: 8,
  bmap_in: 16,
  bmap_out: 8,
  ioctl_in: 32,
  ioctl_out: 16,
  poll_in: 24,
  poll_out: 8,
  fallocate_in: 32,
  dirent: 24,
  lseek_in: 24,
  lseek_out: 8,
  copy_file_range_in: 56,
  copy_file_range_out: 8,
  syncfs_in: 8,
  ext_header: 8,
};

const names = Object.keys(structs) as StructName[];

function request(message: Buffer, extLength = 0): FuseRequest {
  const reply = Buffer.alloc(8192, 0xee);
  return {
    opcode: message.readUInt32LE(4),
    nodeId: Number(message.readBigUInt64LE(16)),
    uid: 0,
    gid: 0,
    pid: 0,
    extLength,
    length: message.length,
    buffer: message,
    view: viewOf(message),
    reply,
    replyView: viewOf(reply),
    replyLimit: reply.length - PAYLOAD,
  };
}

const empty = () => request(Buffer.alloc(HEADER));

const ranges: Record<string, fc.Arbitrary<number>> = {
  u16: fc.integer({ min: 0, max: 0xffff }),
  u32: fc.integer({ min: 0, max: 0xffffffff }),
  i32: fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 }),
  u64: fc.maxSafeNat(),
  i64: fc.maxSafeInteger(),
};

/** Values for each field of a struct. */
function valuesOf(name: StructName): fc.Arbitrary<Record<string, number>> {
  const fields = Object.entries(structs[name]).filter(([, type]) => typeof type === 'string');
  return fc.record(
    Object.fromEntries(fields.map(([field, type]) => [field, ranges[type] as fc.Arbitrary<number>])),
  );
}

const stats: fc.Arbitrary<Stat> = fc.record(
  Object.fromEntries(
    Object.keys(newStat()).map((field) => {
      if (field.endsWith('Sec')) return [field, fc.integer({ min: -(2 ** 40), max: 2 ** 40 })];
      if (field.endsWith('Nsec')) return [field, fc.integer({ min: 0, max: 999_999_999 })];
      if (field === 'rdevMajor') return [field, fc.integer({ min: 0, max: 0xfff })];
      if (field === 'rdevMinor') return [field, fc.integer({ min: 0, max: 0xfffff })];
      if (field === 'mode') return [field, fc.integer({ min: 0, max: 0xffff })];
      return [
        field,
        ['ino', 'size', 'blocks'].includes(field) ? fc.maxSafeNat() : (ranges.u32 as fc.Arbitrary<number>),
      ];
    }),
  ),
) as unknown as fc.Arbitrary<Stat>;

/** What the table's fuse_attr should read of a stat. */
function attrOf(stat: Stat, ino: number) {
  return {
    ino,
    size: stat.size,
    blocks: stat.blocks,
    atime: stat.atimeSec,
    mtime: stat.mtimeSec,
    ctime: stat.ctimeSec,
    atimensec: stat.atimeNsec,
    mtimensec: stat.mtimeNsec,
    ctimensec: stat.ctimeNsec,
    mode: stat.mode,
    nlink: stat.nlink,
    uid: stat.uid,
    gid: stat.gid,
    rdev: encodeDev(stat.rdevMajor, stat.rdevMinor),
    blksize: stat.blksize,
    attrFlags: 0,
  };
}

describe('layouts', () => {
  test('every struct has the size of linux/fuse.h', () => {
    expect(Object.fromEntries(names.map((name) => [name, sizeOf(name)]))).toEqual(sizes);
  });

  test('fields lie where linux/fuse.h has them', () => {
    expect(offsetOf('in_header', 'nodeid')).toBe(16);
    expect(offsetOf('in_header', 'totalExtlen')).toBe(36);
    expect(offsetOf('setattr_in', 'atime')).toBe(32);
    expect(offsetOf('setattr_in', 'mode')).toBe(68);
    expect(offsetOf('setattr_in', 'gid')).toBe(80);
    expect(offsetOf('entry_out', 'ino')).toBe(40);
    expect(offsetOf('attr_out', 'ino')).toBe(16);
    expect(offsetOf('init_out', 'maxPages')).toBe(28);
    expect(offsetOf('init_out', 'flags2')).toBe(32);
    expect(offsetOf('statx_out', 'mask')).toBe(32);
    expect(offsetOf('lk_in', 'lkFlags')).toBe(40);
    expect(offsetOf('statfs_out', 'frsize')).toBe(48);
  });

  test('opcode numbers are unique', () => {
    const codes = Object.values(opcodes).map((row) => row.code);
    expect(new Set(codes).size).toBe(codes.length);
  });
});

describe('readers and writers', () => {
  test.each(names)('%s reads what was written, and touches nothing else', (name) => {
    const size = sizeOf(name);
    fc.assert(
      fc.property(valuesOf(name), fc.integer({ min: 0, max: 5 }), (value, words) => {
        const buffer = Buffer.alloc(size + 64, 0xee);
        const view = viewOf(buffer);
        const at = words * 8;
        expect(writers[name](view, at, value as never)).toBe(size);
        expect(readers[name](view, at)).toEqual(value);
        const around = Buffer.concat([buffer.subarray(0, at), buffer.subarray(at + size)]);
        expect(around.equals(Buffer.alloc(64, 0xee))).toBe(true);
      }),
      { numRuns: 50 },
    );
  });

  test('padding is written as zeros', () => {
    const buffer = Buffer.alloc(80, 0xee);
    writers.statfs_out(viewOf(buffer), 0, { ...readers.statfs_out(viewOf(Buffer.alloc(80)), 0) });
    expect(buffer.equals(Buffer.alloc(80))).toBe(true);
  });

  test('the largest lock offset survives, and times before 1970 are negative', () => {
    const buffer = Buffer.alloc(48);
    buffer.writeBigInt64LE(2n ** 63n - 1n, 24);
    const { end } = readers.lk_in(viewOf(buffer), 0);
    const out = Buffer.alloc(24);
    writers.lk_out(viewOf(out), 0, { start: 0, end, type: 0, pid: 0 });
    expect(out.readBigInt64LE(8)).toBe(2n ** 63n - 1n);
    const setattr = Buffer.alloc(88);
    setattr.writeBigInt64LE(-86_400n, 40);
    expect(readers.setattr_in(viewOf(setattr), 0).mtime).toBe(-86_400);
  });

  test('a lock owner keeps all of its 64 bits', () => {
    const buffer = Buffer.alloc(24);
    buffer.writeBigUInt64LE(0xfedcba9876543211n, 16);
    const { lockOwnerLow, lockOwnerHigh } = readers.flush_in(viewOf(buffer), 0);
    expect([lockOwnerHigh, lockOwnerLow]).toEqual([0xfedcba98, 0x76543211]);
  });
});

describe('attributes', () => {
  test('writeEntryOut and writeCreateOut agree with the table', () => {
    fc.assert(
      fc.property(stats, fc.maxSafeNat(), fc.maxSafeNat(), (stat, ino, fh) => {
        const r = empty();
        expect(writeEntryOut(r, 7, 3, 60, 1.5, stat, ino)).toBe(128);
        const valid = { entryValid: 60, entryValidNsec: 0, attrValid: 1, attrValidNsec: 500_000_000 };
        const entry = { nodeid: 7, generation: 3, ...valid, ...attrOf(stat, ino) };
        expect(readers.entry_out(r.replyView, PAYLOAD)).toEqual(entry);
        expect(writeCreateOut(r, 8, 3, 60, 1.5, stat, ino, fh, 5)).toBe(144);
        expect(readers.entry_out(r.replyView, PAYLOAD)).toEqual({ ...entry, nodeid: 8 });
        const open = { fh, openFlags: 5, backingId: 0 };
        expect(readers.open_out(r.replyView, PAYLOAD + 128)).toEqual(open);
        expect(r.reply[PAYLOAD + 144]).toBe(0xee);
      }),
    );
  });

  test('writeAttrOut and writeStatxOut agree with the table', () => {
    fc.assert(
      fc.property(stats, fc.maxSafeNat(), (stat, ino) => {
        const r = empty();
        expect(writeAttrOut(r, 0, stat, ino)).toBe(104);
        const attr = { attrValid: 0, attrValidNsec: 0, ...attrOf(stat, ino) };
        expect(readers.attr_out(r.replyView, PAYLOAD)).toEqual(attr);
        expect(writeStatxOut(r, 0.25, stat, ino)).toBe(288);
        const statx = readers.statx_out(r.replyView, PAYLOAD);
        expect(statx).toMatchObject({
          attrValid: 0,
          attrValidNsec: 250_000_000,
          mask: 0x7ff | (stat.mask & 0x800),
        });
        expect(statx).toMatchObject({ ino, size: stat.size, mode: stat.mode, mtime: stat.mtimeSec });
        expect(statx).toMatchObject({
          btime: stat.btimeSec,
          btimensec: stat.btimeNsec,
          ctime: stat.ctimeSec,
        });
        expect(statx).toMatchObject({ atimensec: stat.atimeNsec, rdevMajor: stat.rdevMajor, devMajor: 0 });
      }),
    );
  });

  test('an entry that is not there has no node, and a time for which that holds', () => {
    const r = empty();
    expect(writeNegativeEntry(r, 3)).toBe(128);
    expect(readers.entry_out(r.replyView, PAYLOAD)).toMatchObject({ nodeid: 0, entryValid: 3, mode: 0 });
  });

  test('endless times are long ones, and a fraction never becomes a whole second', () => {
    const r = empty();
    writeAttrOut(r, Number.POSITIVE_INFINITY, newStat(), 1);
    expect(readers.attr_out(r.replyView, PAYLOAD).attrValid).toBe(0x7fffffff);
    writeAttrOut(r, 0.99999999999, newStat(), 1);
    const { attrValid, attrValidNsec } = readers.attr_out(r.replyView, PAYLOAD);
    expect(attrValid).toBe(0);
    expect(attrValidNsec).toBeLessThan(1_000_000_000);
  });

  test('an open file has its handle and flags', () => {
    const r = empty();
    expect(writeOpenOut(r, 2 ** 40 + 1, 3)).toBe(16);
    expect(readers.open_out(r.replyView, PAYLOAD)).toEqual({ fh: 2 ** 40 + 1, openFlags: 3, backingId: 0 });
  });

  test('device numbers survive', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 0, max: 0xfff }),
        fc.integer({ min: 0, max: 0xfffff }),
        (major, minor) => {
          const rdev = encodeDev(major, minor);
          expect([devMajor(rdev), devMinor(rdev)]).toEqual([major, minor]);
        },
      ),
    );
    expect(encodeDev(8, 1)).toBe(0x801);
  });
});

const bytes = fc
  .array(fc.integer({ min: 1, max: 255 }), { minLength: 1, maxLength: 255 })
  .map((list) => Buffer.from(list).toString('latin1'));

describe('directory entries', () => {
  interface Entry {
    ino: number;
    off: number;
    type: number;
    name: string;
  }

  function parse(r: FuseRequest, length: number, plus: boolean): Entry[] {
    const found: Entry[] = [];
    for (let at = PAYLOAD; at < PAYLOAD + length; ) {
      const start = at + (plus ? 128 : 0);
      const { namelen, ...rest } = readers.dirent(r.replyView, start);
      found.push({ ...rest, name: r.reply.toString('latin1', start + 24, start + 24 + namelen) });
      at = Math.ceil((start - PAYLOAD + 24 + namelen) / 8) * 8 + PAYLOAD;
    }
    return found;
  }

  const entries = fc.array(
    fc.record({ ino: fc.maxSafeNat(), off: fc.maxSafeNat(), type: fc.constantFrom(4, 8, 10), name: bytes }),
    { maxLength: 30 },
  );

  test('as many as fit into the limit are there, and no byte behind it is touched', () => {
    fc.assert(
      fc.property(entries, fc.integer({ min: 0, max: 4096 }), fc.boolean(), (list, limit, plus) => {
        const r = empty();
        const stat = newStat();
        const put: Entry[] = [];
        let at = 0;
        for (const { ino, off, type, name } of list) {
          const next = plus
            ? addDirentPlus(r, at, limit, off, type, name, 9, 1, 0, 0, stat, ino)
            : addDirent(r, at, limit, ino, off, type, name);
          if (next < 0) break;
          at = next;
          put.push({ ino, off, type, name });
        }
        expect(at).toBeLessThanOrEqual(limit);
        expect(parse(r, at, plus)).toEqual(put);
        expect(r.reply.subarray(PAYLOAD + at).every((byte) => byte === 0xee)).toBe(true);
      }),
    );
  });

  test('an entry without a node is all zeros before its name', () => {
    const r = empty();
    expect(addDirentPlus(r, 0, 4096, 1, 4, 'etc', 0, 1, 60, 60, newStat(), 5)).toBe(128 + 24 + 8);
    expect(r.reply.subarray(PAYLOAD, PAYLOAD + 128).equals(Buffer.alloc(128))).toBe(true);
  });
});

describe('requests', () => {
  function message(opcode: number, ...body: (string | Buffer)[]): Buffer {
    const head = Buffer.alloc(HEADER);
    head.writeUInt32LE(opcode, 4);
    head.writeBigUInt64LE(77n, 16);
    return Buffer.concat([
      head,
      ...body.map((part) => (typeof part === 'string' ? Buffer.from(part, 'latin1') : part)),
    ]);
  }

  test('names are bytes, one after another', () => {
    fc.assert(
      fc.property(bytes, bytes, (first, second) => {
        const r = request(message(opcodes.SYMLINK.code, `${first}\0${second}\0`));
        expect(readName(r, HEADER)).toBe(first);
        expect(readName(r, HEADER + first.length + 1)).toBe(second);
      }),
    );
  });

  test('a name without an end ends with the message, before its extensions', () => {
    expect(readName(request(message(1, 'abc')), HEADER)).toBe('abc');
    expect(readName(request(message(1, 'abcdefgh'), 4), HEADER)).toBe('abcd');
  });

  test('extended attributes are found behind the struct of either length', () => {
    for (const ext of [true, false]) {
      const struct = Buffer.alloc(ext ? 16 : 8);
      struct.writeUInt32LE(3, 0);
      struct.writeUInt32LE(2, 4);
      if (ext) struct.writeUInt32LE(1, 8);
      const r = request(message(opcodes.SETXATTR.code, struct, 'user.a\0', 'x\0y'));
      const found = readSetxattr(r, ext);
      expect(found).toMatchObject({ name: 'user.a', size: 3, flags: 2, setxattrFlags: ext ? 1 : 0 });
      expect(r.buffer.toString('latin1', found.valueAt, found.valueAt + found.size)).toBe('x\0y');
    }
  });

  test('supplementary groups are found, also behind a security context, and their lack too', () => {
    const u32 = (...list: number[]) => Buffer.from(Uint32Array.from(list).buffer);
    const groups = u32(16, 32, 1, 1000);
    const context = u32(8 + 16, 1, 0, 0, 0, 0);
    const name = 'abcdefg\0';
    expect(supplementaryGroups(request(message(9, name, groups), 16))).toEqual([1000]);
    expect(supplementaryGroups(request(message(9, name, context, groups), 24 + 16))).toEqual([1000]);
    expect(supplementaryGroups(request(message(9, name, u32(16, 32, 0, 0)), 16))).toEqual([]);
    expect(supplementaryGroups(request(message(9, name, context), 24))).toEqual([]);
    expect(supplementaryGroups(request(message(9, name)))).toEqual([]);
    expect(supplementaryGroups(request(message(9, name, u32(16, 32, 99, 0)), 16))).toEqual([]);
    expect(supplementaryGroups(request(message(9, name, u32(0, 0, 0, 0)), 16))).toEqual([]);
  });

  test('FORGET and BATCH_FORGET name the same things', () => {
    const seen: [number, number][] = [];
    const note = (nodeId: number, nlookup: number) => seen.push([nodeId, nlookup]);
    const one = Buffer.alloc(8);
    one.writeBigUInt64LE(4n);
    forEachForget(request(message(opcodes.FORGET.code, one)), note);
    const batch = Buffer.alloc(8 + 32);
    batch.writeUInt32LE(99, 0);
    batch.writeBigUInt64LE(5n, 8);
    batch.writeBigUInt64LE(1n, 16);
    batch.writeBigUInt64LE(2n ** 40n, 24);
    batch.writeBigUInt64LE(2n, 32);
    forEachForget(request(message(opcodes.BATCH_FORGET.code, batch)), note);
    expect(seen).toEqual([
      [77, 4],
      [5, 1],
      [2 ** 40, 2],
    ]);
  });
});
