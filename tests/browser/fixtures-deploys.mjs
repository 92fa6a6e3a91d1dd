export const deployments = [];
export const incidents = [];
export async function handle() { return false; }
