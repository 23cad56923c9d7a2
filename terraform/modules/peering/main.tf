# Two regions' VPCs, and the routes between them.

terraform {
  required_providers {
    aws = {
      source                = "hashicorp/aws"
      configuration_aliases = [aws.from, aws.to]
    }
  }
}

variable "from" {
  description = "The network output of a region."
  type        = object({ vpc_id = string, route_table_id = string, cidr = string, region = string })
}

variable "to" {
  description = "The network output of the other region."
  type        = object({ vpc_id = string, route_table_id = string, cidr = string, region = string })
}

resource "aws_vpc_peering_connection" "this" {
  provider    = aws.from
  vpc_id      = var.from.vpc_id
  peer_vpc_id = var.to.vpc_id
  peer_region = var.to.region
}

resource "aws_vpc_peering_connection_accepter" "this" {
  provider                  = aws.to
  vpc_peering_connection_id = aws_vpc_peering_connection.this.id
  auto_accept               = true
}

resource "aws_route" "from" {
  provider                  = aws.from
  route_table_id            = var.from.route_table_id
  destination_cidr_block    = var.to.cidr
  vpc_peering_connection_id = aws_vpc_peering_connection_accepter.this.id
}

resource "aws_route" "to" {
  provider                  = aws.to
  route_table_id            = var.to.route_table_id
  destination_cidr_block    = var.from.cidr
  vpc_peering_connection_id = aws_vpc_peering_connection_accepter.this.id
}
