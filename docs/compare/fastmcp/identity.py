from fastmcp import FastMCP
from fastmcp.server.auth.providers.jwt import StaticTokenVerifier
from fastmcp.server.dependencies import get_access_token

tokens = {
    "ada's token": {"client_id": "ada", "scopes": []},
    "bob's token": {"client_id": "bob", "scopes": []},
}
mcp = FastMCP("identity", auth=StaticTokenVerifier(tokens))


@mcp.tool
def whoami() -> str | None:
    """Says who calls"""
    token = get_access_token()
    return token and token.client_id


if __name__ == "__main__":
    mcp.run(transport="http")
