// Counters and gauges as Prometheus text (exposition format 0.0.4): pure rendering.
import type { Gauge, MetricsReport, OpcodeCounters } from './verbs.ts';

/** Upper bounds of the latency histogram, in seconds. A dispatcher counts into these and one more for the rest. */
export const latencyBuckets: readonly number[] = [
  0.00001, 0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.1, 1, 10,
];

export function metricsText(report: MetricsReport): string {
  const out: string[] = [];
  head(out, 'kasane_requests_total', 'counter', 'FUSE requests answered.');
  for (const one of report.opcodes) out.push(`kasane_requests_total{opcode="${one.opcode}"} ${one.count}`);
  head(
    out,
    'kasane_request_errors_total',
    'counter',
    'FUSE requests answered with an error, expected misses too.',
  );
  for (const one of report.opcodes)
    out.push(`kasane_request_errors_total{opcode="${one.opcode}"} ${one.errors}`);
  head(out, 'kasane_request_seconds', 'histogram', 'Time from reading a request to its answer.');
  for (const one of report.opcodes) histogram(out, one);
  for (const gauge of report.gauges) {
    head(out, `kasane_${gauge.name}`, gauge.type, gauge.help);
    out.push(`kasane_${gauge.name} ${number(gauge.value)}`);
  }
  return `${out.join('\n')}\n`;
}

function histogram(out: string[], one: OpcodeCounters): void {
  let sum = 0;
  for (let i = 0; i < latencyBuckets.length; i++) {
    sum += one.histogram[i] ?? 0;
    out.push(`kasane_request_seconds_bucket{opcode="${one.opcode}",le="${latencyBuckets[i]}"} ${sum}`);
  }
  out.push(`kasane_request_seconds_bucket{opcode="${one.opcode}",le="+Inf"} ${one.count}`);
  out.push(`kasane_request_seconds_sum{opcode="${one.opcode}"} ${number(one.seconds)}`);
  out.push(`kasane_request_seconds_count{opcode="${one.opcode}"} ${one.count}`);
}

function head(out: string[], name: string, type: Gauge['type'] | 'histogram', help: string): void {
  const text = help.replaceAll('\\', '\\\\').replaceAll('\n', '\\n');
  out.push(`# HELP ${name} ${text}`, `# TYPE ${name} ${type}`);
}

function number(value: number): string {
  if (Number.isNaN(value)) return 'NaN';
  if (!Number.isFinite(value)) return value > 0 ? '+Inf' : '-Inf';
  return String(value);
}
