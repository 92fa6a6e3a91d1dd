// Places the nodes of a needs graph: columns by the longest way from a start, rows by the middle of
// what each needs. Pure; a cycle (which the server refuses) can't hang it.

export interface GraphNode {
  name: string;
  needs: string[];
}

export interface Placed {
  name: string;
  column: number;
  row: number;
}

export interface Graph {
  nodes: Placed[];
  edges: { from: Placed; to: Placed }[];
  columns: number;
  rows: number;
}

export function place(list: GraphNode[]): Graph {
  const byName = new Map(list.map((n) => [n.name, n]));
  const depth = new Map<string, number>();
  const visiting = new Set<string>();
  const deep = (name: string): number => {
    const known = depth.get(name);
    if (known !== undefined) return known;
    const node = byName.get(name);
    if (!node || visiting.has(name)) return -1;
    visiting.add(name);
    const d = node.needs.reduce((most, need) => Math.max(most, deep(need) + 1), 0);
    visiting.delete(name);
    depth.set(name, d);
    return d;
  };
  for (const node of list) deep(node.name);

  const columns: GraphNode[][] = [];
  for (const node of list) (columns[depth.get(node.name) ?? 0] ??= []).push(node);

  const placed = new Map<string, Placed>();
  const middle = (node: GraphNode): number => {
    const ys = node.needs.map((n) => placed.get(n)?.row).filter((y) => y !== undefined);
    return ys.length === 0 ? 0 : ys.reduce((a, b) => a + b, 0) / ys.length;
  };
  columns.forEach((column, x) => {
    const order = x === 0 ? column : [...column].sort((a, b) => middle(a) - middle(b));
    order.forEach((node, y) => placed.set(node.name, { name: node.name, column: x, row: y }));
  });

  const nodes = list.map((n) => placed.get(n.name)).filter((n) => n !== undefined);
  const edges = list.flatMap((node) => {
    const to = placed.get(node.name);
    return node.needs.flatMap((need) => {
      const from = placed.get(need);
      return from && to ? [{ from, to }] : [];
    });
  });
  return { nodes, edges, columns: columns.length, rows: Math.max(0, ...columns.map((c) => c.length)) };
}

/** Without edges that a longer way already says. Keeps the drawing readable. */
export function essential(list: GraphNode[]): GraphNode[] {
  const byName = new Map(list.map((n) => [n.name, n]));
  const memo = new Map<string, Set<string>>();
  const behind = (name: string, seen: Set<string>): Set<string> => {
    const known = memo.get(name);
    if (known) return known;
    const all = new Set<string>();
    if (seen.has(name)) return all;
    seen.add(name);
    for (const need of byName.get(name)?.needs ?? []) {
      all.add(need);
      for (const further of behind(need, seen)) all.add(further);
    }
    seen.delete(name);
    memo.set(name, all);
    return all;
  };
  return list.map((node) => ({
    name: node.name,
    needs: node.needs.filter((need) => !node.needs.some((other) => other !== need && behind(other, new Set()).has(need))),
  }));
}
